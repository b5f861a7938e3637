//! A server's name, where no lock of an operating system proves anybody dead.

use bevy_player_data::{
    session::{LeaseState, SessionSettings, Sessions},
    store::{LapsedLease, Lease},
};

use super::*;

const TTL: Duration = Duration::from_millis(900);

fn quick(name: &str) -> SessionSettings {
    SessionSettings {
        beat: Duration::from_millis(100),
        lease_ttl: TTL,
        name: name.to_owned(),
        ..SessionSettings::default()
    }
}

#[tokio::test]
async fn a_lapsed_lease_whose_beat_has_moved_keeps_its_name() {
    let url = shared().new_schema();
    let first = Server::start(connect(&url), "arena").await;
    let lapsed = vec![LapsedLease {
        server: first.id,
        beat: 1,
    }];
    first.beat().await.unwrap();
    let newcomer = Lease {
        lapsed,
        ..support::boot("arena")
    };
    let taken = connect(&url).lease(newcomer.clone()).await.unwrap_err();
    assert_eq!(
        taken,
        StoreError::NameTaken {
            name: "arena".to_owned()
        }
    );
    let lapsed = vec![LapsedLease {
        server: first.id,
        beat: 2,
    }];
    let leases = connect(&url).lease(Lease { lapsed, ..newcomer }).await.unwrap();
    assert_eq!(leases.servers.len(), 1, "the first one's row is gone");
    let late = first.beat().await.unwrap_err();
    assert!(
        matches!(late, StoreError::NameTaken { .. }),
        "the first one is told: {late}"
    );
}

#[tokio::test]
async fn boots_of_one_name_that_start_at_once_leave_one_of_them() {
    let url = shared().new_schema();
    for round in 0..10 {
        let name = format!("arena {round}");
        let boots: Vec<_> = (0..5)
            .map(|_| {
                let (store, lease) = (connect(&url), support::boot(&name));
                tokio::spawn(async move { store.lease(lease).await })
            })
            .collect();
        let mut winners = 0;
        for boot in boots {
            match boot.await.unwrap() {
                Ok(_) => winners += 1,
                Err(StoreError::NameTaken { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!(winners, 1, "{name}");
    }
}

#[tokio::test]
async fn a_restart_under_a_crashed_servers_name_waits_until_its_lease_has_lapsed() {
    let url = shared().new_schema();
    // It stops beating without a word.
    let crashed = Server::start(connect(&url), "arena").await;
    crashed.session(ADA).await;

    let start = std::time::Instant::now();
    let successor = Sessions::new(connect(&url), quick("arena"), tokio::runtime::Handle::current());
    while successor.status().state != LeaseState::Held {
        assert_ne!(successor.status().state, LeaseState::Refused);
        assert!(start.elapsed() < TTL * 20, "the name was never free");
        successor.tick();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(start.elapsed() >= TTL, "it was free after {:?}", start.elapsed());
    let leases = crashed.store.leases().await.unwrap();
    assert_eq!(leases.servers.len(), 1, "the crashed boot's row is gone");
}

#[tokio::test]
async fn a_restart_under_a_living_servers_name_is_refused() {
    let url = shared().new_schema();
    let living = Sessions::new(connect(&url), quick("arena"), tokio::runtime::Handle::current());
    let second = Sessions::new(connect(&url), quick("arena"), tokio::runtime::Handle::current());
    let start = std::time::Instant::now();
    while living.status().state != LeaseState::Held {
        living.tick();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    while second.status().state != LeaseState::Refused {
        assert_ne!(second.status().state, LeaseState::Held);
        assert!(start.elapsed() < TTL * 20, "it was never refused");
        living.tick();
        second.tick();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(living.status().state, LeaseState::Held);
}
