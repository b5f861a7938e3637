//! Saves of players who change as soon as their last save is acknowledged.

use std::time::{Duration, Instant};

use crate::{
    Scale,
    bare::{Bare, Synchronous},
    groups, middle,
    ours::Ours,
    resources::Used,
    row,
};

pub fn rows(scale: &Scale) {
    for bytes in [1024, 16 * 1024] {
        of_size(scale, bytes);
    }
}

/// What the baselines have taken, one entry for each round.
#[derive(Default)]
struct Rounds {
    per_second: Vec<f64>,
    cpu: Vec<f64>,
    written: Vec<f64>,
}

impl Rounds {
    /// Takes the time of `saves` saves.
    fn take(&mut self, saves: usize, run: impl FnOnce()) {
        let (before, began) = (Used::now(), Instant::now());
        run();
        let saves = saves as f64;
        self.per_second.push(saves / began.elapsed().as_secs_f64());
        let used = Used::now().since(before);
        self.cpu.push(used.cpu / saves);
        self.written.push(used.written / saves);
    }

    /// The first round warms the files up.
    fn median(mut figures: Vec<f64>) -> f64 {
        figures.remove(0);
        middle(figures)
    }
}

fn of_size(scale: &Scale, bytes: usize) {
    let folder = tempfile::tempdir().expect("a folder for the files");
    let file = |name: &str| folder.path().join(name);
    let mut ours = Ours::with_players(&file("crate.db"), "crate", 0..scale.players, bytes);
    let mut same = Bare::new(&file("same.db"), scale.players, Synchronous::Full);
    let mut off = Bare::new(&file("off.db"), scale.players, Synchronous::Off);
    let mut alone = Bare::new(&file("alone.db"), scale.players, Synchronous::Full);
    let mut taken: [Rounds; 4] = Default::default();
    let mut sizes = Vec::new();
    // Larger documents take longer, and one transaction for each save much longer.
    let saves = scale.saves * 1024 / bytes.min(8 * 1024);
    let few = saves.div_ceil(20);
    for _ in 0..=scale.rounds {
        groups::count();
        taken[0].take(saves, || drop(ours.save_in_a_closed_loop(saves, Duration::MAX)));
        let group = groups::mean();
        sizes.push(group as f64);
        taken[1].take(saves, || same.save(saves, group, bytes));
        taken[2].take(saves, || off.save(saves, group, bytes));
        taken[3].take(few, || alone.save(few, 1, bytes));
    }
    let mut small = Rounds::default();
    ours.change_only(100);
    for _ in 0..=scale.rounds {
        small.take(saves, || drop(ours.save_in_a_closed_loop(saves, Duration::MAX)));
    }
    let what = format!("{} players in a closed loop, {} KiB", scale.players, bytes / 1024);
    let group = middle(sizes);
    let [ours, same, off, alone] = taken;
    let per_second = Rounds::median(ours.per_second);
    for (baseline, rounds, goal) in [
        (
            format!("in transactions of as many ({group:.0})"),
            same.per_second,
            "0.95",
        ),
        ("with `synchronous=OFF`".to_owned(), off.per_second, "0.8"),
        ("in a transaction for each".to_owned(), alone.per_second, "8"),
    ] {
        let title = format!("durable saves a second, {what}, beside saves {baseline}");
        row(&title, per_second, Rounds::median(rounds), 0, goal);
    }
    let cpu = (Rounds::median(ours.cpu), Rounds::median(same.cpu));
    row(&format!("CPU µs a save, {what}"), cpu.0, cpu.1, 1, "");
    let written = (Rounds::median(ours.written), Rounds::median(same.written));
    row(
        &format!("bytes written a save, {what}"),
        written.0,
        written.1,
        0,
        "",
    );
    let small = Rounds::median(small.written);
    row(
        &format!(
            "the same, {} KiB of which 100 bytes change, beside whole ones",
            bytes / 1024
        ),
        small,
        written.1,
        0,
        if bytes > 4096 { "0.5" } else { "" },
    );
}
