//! Time is whatever the schedule makes of it: a pause ends at once or a little later, and one of [`FOREVER`] never does.

pub use real_std::time::Duration;

use shuttle::rand::Rng;

use crate::future::pending;

pub const FOREVER: Duration = Duration::MAX;

pub async fn sleep(pause: Duration) {
    if pause == FOREVER {
        pending::<()>().await;
    }
    for _ in 0..shuttle::rand::thread_rng().gen_range(0..3) {
        shuttle::future::yield_now().await;
    }
}
