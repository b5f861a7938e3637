//! Lives and cuts: a store is recorded, its power is cut at many places of the recording, and one of the disks that are
//! left is what the next recording begins with.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use super::{
    books::Books,
    disk::Disk,
    disk_io::lay_out,
    places::{Place, places},
    sabotage::Sabotage,
    shim,
    survey::{Expected, Found, survey},
    tally::Tally,
    tape::{Event, Files, Synchronous, Tape},
    workload::Workload,
};

/// How often the power is cut in one life.
const CUTS: usize = 25;
/// How many lives a file has.
const LIVES: usize = 4;
/// How many cuts one seed stands for.
pub(crate) const CUTS_PER_SEED: usize = CUTS * LIVES;
/// How many rounds of requests a life has at least, and how many more it may have.
pub(crate) type Rounds = (usize, usize);
/// Those of a file that is not written to for long.
const SHORT: Rounds = (60, 60);
/// So many that the log is folded meanwhile, by the thread that the store has for it.
const LONG: Rounds = (500, 100);

/// Under what conditions the power is cut.
#[derive(Clone, Copy)]
pub(crate) struct Campaign {
    pub(crate) synchronous: Synchronous,
    /// Whether the disk says that it has synced and hasn't.
    pub(crate) disk_lies: bool,
    pub(crate) sabotage: Option<Sabotage>,
    pub(crate) rounds: Rounds,
}

impl Campaign {
    pub(crate) const FAITHFUL: Self = Self {
        synchronous: Synchronous::AsAsked,
        disk_lies: false,
        sabotage: None,
        rounds: SHORT,
    };

    pub(crate) const FOLDING: Self = Self {
        rounds: LONG,
        ..Self::FAITHFUL
    };

    pub(crate) const fn sabotaged(sabotage: Sabotage) -> Self {
        Self {
            sabotage: Some(sabotage),
            ..Self::FAITHFUL
        }
    }

    /// Runs the seeds from `first` on, as many as it takes for so many cuts.
    pub(crate) fn run(self, first: u64, cuts: usize) -> Tally {
        let seeds = u64::try_from(cuts.div_ceil(CUTS_PER_SEED)).expect("a number of seeds");
        let next = AtomicU64::new(first);
        let total = Mutex::new(Tally::default());
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let test = thread::current().name().unwrap_or_default().to_owned();
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= first + seeds {
                            break;
                        }
                        let tally = self.chain(seed, &test);
                        total.lock().unwrap_or_else(PoisonError::into_inner).add(tally);
                    }
                });
            }
        });
        total.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lives of one file.
    fn chain(self, seed: u64, test: &str) -> Tally {
        let mut tally = Tally::default();
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut heir = Some((Files::new(), Arc::new(Books::default())));
        for life in 0..LIVES {
            let Some((base, books)) = heir.take() else { break };
            let whence = Whence { seed, life, test };
            let rounds = self.rounds.0 + rng.usize(..=self.rounds.1);
            let recording = self.record(&base, books, rounds, rng.fork(), &mut tally);
            heir = self.cut(&base, &recording, &mut rng, &mut tally, &whence);
        }
        tally
    }

    pub(crate) fn record(
        self,
        base: &Files,
        books: Arc<Books>,
        rounds: usize,
        rng: fastrand::Rng,
        tally: &mut Tally,
    ) -> Recording {
        let folder = Folder::new();
        lay_out(folder.path(), base);
        let tape = Arc::new(Tape::new(base, self.synchronous));
        let watching = shim::record(folder.path(), Arc::clone(&tape));
        let history = Workload::new(folder.path(), &tape, books, self.sabotage, rng, tally).run(rounds);
        drop(watching);
        tally.recordings += 1;
        Recording { tape, history }
    }

    /// Cuts the power, and returns what one of the cuts has left.
    fn cut(
        self,
        base: &Files,
        recording: &Recording,
        rng: &mut fastrand::Rng,
        tally: &mut Tally,
        whence: &Whence<'_>,
    ) -> Option<(Files, Arc<Books>)> {
        let places = places(&recording.tape.state(), base.is_empty());
        let cuts = choose_cuts(&places, rng);
        let favourite = rng.usize(..cuts.len());
        let mut heir = None;
        self.cut_at(
            base,
            recording,
            &cuts,
            rng,
            tally,
            |n, files, outcome, tally| match outcome {
                Ok(books) if heir.is_none() || n == favourite => heir = Some((files, books)),
                Ok(_) => {}
                Err(found) => {
                    let (at, place) = cuts[n];
                    let events = places.len() - 1;
                    tally.find(
                        &found,
                        format_args!("{whence}: cut {n} before event {at} of {events}, {place:?}"),
                    );
                }
            },
        );
        heir
    }

    /// Cuts the power at these events, in their order, and tells what was left by each cut and found there.
    pub(crate) fn cut_at(
        self,
        base: &Files,
        recording: &Recording,
        cuts: &[(usize, Place)],
        rng: &mut fastrand::Rng,
        tally: &mut Tally,
        mut tell: impl FnMut(usize, Files, Result<Arc<Books>, Found>, &mut Tally),
    ) {
        let tape = recording.tape.state();
        let mut disk = Disk::new(base, self.disk_lies);
        let (mut now, mut asked, mut answered) = (0, 0, 0);
        for (n, &(at, place)) in cuts.iter().enumerate() {
            for (number, event) in tape.events.iter().enumerate().take(at).skip(now) {
                disk.see(number, event);
                match *event {
                    Event::Asked { requests } => asked = requests,
                    Event::Answered { requests } => answered = requests,
                    _ => {}
                }
            }
            now = at;
            let files = disk.cut(rng, tally);
            tally.cuts += 1;
            *tally.places.entry(place).or_default() += 1;
            let expected = Expected {
                history: &recording.history,
                answered,
                asked,
                numbers_count: self.sabotage != Some(Sabotage::SplitPurchases),
            };
            let survived = power_up(&files, &expected, rng, tally);
            if let Ok(survived) = survived {
                tally.unanswered_survived += usize::from(survived > answered);
                tally.unanswered_lost += usize::from(survived == answered && asked > answered);
            }
            let outcome = survived.map(|survived| Arc::clone(&recording.history[survived]));
            tell(n, files, outcome, tally);
        }
    }
}

/// Starts with these files in a folder of their own.
fn power_up(
    files: &Files,
    expected: &Expected<'_>,
    rng: &mut fastrand::Rng,
    tally: &mut Tally,
) -> Result<usize, Found> {
    let folder = Folder::new();
    lay_out(folder.path(), files);
    lay_stale_index(folder.path(), rng, tally);
    let _watching = shim::throw_away(folder.path());
    survey(folder.path(), expected, rng)
}

/// What the store did, and what that should have left.
pub(crate) struct Recording {
    pub(crate) tape: Arc<Tape>,
    pub(crate) history: Vec<Arc<Books>>,
}

/// Where a finding comes from. It's told of a panic as well.
struct Whence<'a> {
    seed: u64,
    life: usize,
    test: &'a str,
}

impl fmt::Display for Whence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, life, test } = self;
        write!(
            f,
            "POWER_SEED={seed} POWER_CUTS={CUTS_PER_SEED} cargo test --test power_loss {test} -- --nocapture\n  \
             life {life}"
        )
    }
}

impl Drop for Whence<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{self}");
        }
    }
}

/// Takes each place in its turn, so that rare ones are met as often as common ones. In the order of the tape.
fn choose_cuts(places: &[Place], rng: &mut fastrand::Rng) -> Vec<(usize, Place)> {
    let mut by_place = BTreeMap::<Place, Vec<usize>>::new();
    for (at, &place) in places.iter().enumerate() {
        by_place.entry(place).or_default().push(at);
    }
    let by_place: Vec<_> = by_place.into_iter().collect();
    let first = rng.usize(..by_place.len());
    let cut = |n| {
        // A file is created once, and may well be left in more states than any other place.
        let turn = match by_place[0].0 {
            Place::Creation if n % 3 == 0 => 0,
            _ => (first + n) % by_place.len(),
        };
        let (place, all): &(Place, Vec<usize>) = &by_place[turn];
        (all[rng.usize(..all.len())], *place)
    };
    let mut cuts: Vec<_> = (0..CUTS).map(cut).collect();
    cuts.sort_unstable();
    cuts
}

/// The index of the log is shared memory in a file: after a cut there may be anything in it.
fn lay_stale_index(folder: &Path, rng: &mut fastrand::Rng, tally: &mut Tally) {
    if rng.u8(..4) == 0 {
        let mut garbage = vec![0; 32 * 1024];
        rng.fill(&mut garbage);
        fs::write(folder.join("players.db-shm"), garbage).expect("the test's files can be written");
        tally.fault("the log's index is garbage");
    }
}

/// A folder of its own, without symbolic links in its path.
struct Folder {
    path: std::path::PathBuf,
    _folder: tempfile::TempDir,
}

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test can be made");
        let path = folder.path().canonicalize().expect("it has just been made");
        Self {
            path,
            _folder: folder,
        }
    }

    fn path(&self) -> &Path {
        &self.path
    }
}
