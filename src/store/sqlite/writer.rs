//! The thread that owns the write connection, and group commit.
//!
//! Requests that queue up while one transaction is on its way to the disk become the next transaction, and one `fsync`
//! serves them all. One that is refused takes nothing of its neighbours with it: SQLite undoes a statement that fails,
//! and a request of several statements has a savepoint of its own. Nobody is answered, refusals included, before the
//! transaction is durable: a refusal, too, may rest on what a neighbour has just written.

use std::{path::PathBuf, sync::mpsc};

use rusqlite::Connection;

use super::{
    super::StoreError,
    checkpointer::Checkpointer,
    error::Failure,
    fairness::Fairness,
    file::Database,
    names::Names,
    tables::Tables,
    worker::{Reply, Worker},
};
use crate::steps;

/// How many requests share a transaction at most.
const GROUP_REQUESTS: usize = 1000;
/// How many bytes of documents a transaction may hold before the next request has to wait for another one. It bounds
/// the growth of the log, and how long the first request waits for the last.
const GROUP_BYTES: usize = 16 * 1024 * 1024;
/// What a page of the file holds, in bytes.
const PAGE_BYTES: usize = 4096;

/// The handle to the thread.
pub(super) struct Writer(Worker<Box<dyn Job>>);

impl Writer {
    pub(super) fn start(database: Database, checkpointer: Checkpointer) -> Result<Self, StoreError> {
        let state = State::new(database, checkpointer);
        let path = state.path.clone();
        Worker::start("player data writer", &path, move |queue| state.serve(&queue)).map(Self)
    }

    /// Runs `work` in a transaction and answers once that is durable.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        size: Size,
        work: impl FnOnce(&mut Tables<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.0
            .ask(|reply| {
                Box::new(Request {
                    size,
                    stage: Stage::Waiting(work),
                    reply,
                }) as Box<dyn Job>
            })
            .await
    }
}

/// How much a request does.
#[derive(Clone, Copy)]
pub(super) struct Size {
    /// The weight of its documents in bytes.
    pub(super) bytes: usize,
    pub(super) changes: Changes,
}

impl Size {
    /// A request without documents.
    pub(super) const fn of(changes: Changes) -> Self {
        Self { bytes: 0, changes }
    }
}

/// How many statements of a request change something.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Changes {
    /// At most one, which SQLite undoes by itself when it fails, or it gives the whole transaction up, or lets none
    /// commit any more because the file is damaged. (A savepoint costs as much as the statement: SQLite keeps a copy of
    /// each page that changes.)
    Single,
    Several,
}

/// A request, whatever it returns.
trait Job: Send {
    fn size(&self) -> Size;
    /// Does the work inside a transaction and keeps the outcome. An error means that its changes have to be undone.
    fn run(&mut self, tables: &mut Tables<'_>) -> Result<(), StoreError>;
    /// Tells whoever asked: the outcome if the transaction is durable, otherwise why it isn't.
    fn answer(self: Box<Self>, durable: Result<(), StoreError>);
}

struct Request<W, T> {
    size: Size,
    stage: Stage<W, T>,
    reply: Reply<T>,
}

enum Stage<W, T> {
    Waiting(W),
    Running,
    Done(Result<T, StoreError>),
}

impl<W, T> Job for Request<W, T>
where
    W: FnOnce(&mut Tables<'_>) -> Result<T, Failure> + Send,
    T: Send,
{
    fn size(&self) -> Size {
        self.size
    }

    fn run(&mut self, tables: &mut Tables<'_>) -> Result<(), StoreError> {
        let Stage::Waiting(work) = std::mem::replace(&mut self.stage, Stage::Running) else {
            unreachable!("a request runs in one transaction only");
        };
        let outcome = work(tables).map_err(|failure| failure.explain(tables.path));
        let undo = outcome.as_ref().map(|_| ()).map_err(StoreError::clone);
        self.stage = Stage::Done(outcome);
        undo
    }

    fn answer(self: Box<Self>, durable: Result<(), StoreError>) {
        let outcome = match (durable, self.stage) {
            (Err(error), _) => Err(error),
            (Ok(()), Stage::Done(outcome)) => outcome,
            (Ok(()), _) => unreachable!("a transaction is durable only after each of its requests has run"),
        };
        // Whoever asked may have gone: what was done stands all the same.
        let _ = self.reply.send(outcome);
    }
}

/// What the thread owns. Fields are dropped in order: the last connection that is closed tidies the log up, and that is
/// the writer's.
struct State {
    checkpointer: Checkpointer,
    connection: Connection,
    path: PathBuf,
    names: Names,
    fairness: Fairness,
}

impl State {
    fn new(database: Database, checkpointer: Checkpointer) -> Self {
        let Database { connection, path } = database;
        Self {
            checkpointer,
            connection,
            names: Names::beside(&path),
            path,
            fairness: Fairness::default(),
        }
    }

    fn serve(mut self, queue: &mpsc::Receiver<Box<dyn Job>>) {
        while let Ok(first) = queue.recv() {
            self.run(gather(first, queue));
        }
    }

    fn run(&mut self, mut group: Vec<Box<dyn Job>>) {
        let durable = self.transact(&mut group).inspect_err(|error| {
            tracing::warn!("a transaction of {} requests failed: {error}", group.len());
            self.roll_back();
        });
        self.names.settle(durable.is_ok());
        tracing::trace!(requests = group.len(), "a transaction has ended");
        let pages: usize = group.iter().map(|job| 1 + job.size().bytes / PAGE_BYTES).sum();
        self.checkpointer.note(pages);
        for job in group {
            job.answer(durable.clone());
        }
        self.fairness.give_way(&self.connection);
    }

    fn transact(&mut self, group: &mut [Box<dyn Job>]) -> Result<(), StoreError> {
        let mut tables = Tables::new(&self.connection, &mut self.names, &self.path);
        self.fairness.begin(|| tables.control("BEGIN IMMEDIATE"))?;
        for job in group {
            run_one(&mut **job, &mut tables)?;
        }
        steps::reached("commit.before");
        tables.control("COMMIT")?;
        steps::reached("commit.done");
        Ok(())
    }

    /// Leaves a failed transaction, if SQLite hasn't already done so.
    fn roll_back(&mut self) {
        if self.connection.is_autocommit() {
            return;
        }
        let tables = Tables::new(&self.connection, &mut self.names, &self.path);
        if let Err(error) = tables.control("ROLLBACK") {
            tracing::error!("a failed transaction could not be rolled back: {error}");
        }
    }
}

/// Runs one request of a transaction.
///
/// # Errors
/// When its neighbours' work is lost as well. A request that is refused by itself has been undone.
fn run_one(job: &mut dyn Job, tables: &mut Tables<'_>) -> Result<(), StoreError> {
    let has_savepoint = job.size().changes == Changes::Several;
    if has_savepoint {
        tables.control("SAVEPOINT request")?;
    }
    let changed_before = tables.connection.total_changes();
    if let Err(error) = job.run(tables) {
        // SQLite gives up the whole transaction on some errors (a full disk, failed I/O): then the neighbours' work is
        // gone too, and going on would commit each later statement on its own.
        let is_gone = tables.connection.is_autocommit();
        // It did more than it had said, and there is no way to undo it alone.
        let is_half_done = !has_savepoint && tables.connection.total_changes() != changed_before;
        if is_gone || is_half_done {
            return Err(lost_with_its_group(error));
        }
        if has_savepoint {
            tables.control("ROLLBACK TO request")?;
        }
    }
    if has_savepoint {
        tables.control("RELEASE request")?;
    }
    Ok(())
}

/// The answer to everybody whose transaction was lost through one request's `error`.
pub(super) fn lost_with_its_group(error: StoreError) -> StoreError {
    match error {
        StoreError::Unavailable { .. } => error,
        other => StoreError::unavailable(format_args!("a transaction was lost ({other})")),
    }
}

/// `first` and what is queued behind it, as far as a group may go.
fn gather(first: Box<dyn Job>, queue: &mpsc::Receiver<Box<dyn Job>>) -> Vec<Box<dyn Job>> {
    let mut bytes = first.size().bytes;
    let mut group = vec![first];
    while group.len() < GROUP_REQUESTS && bytes < GROUP_BYTES {
        let Ok(job) = queue.try_recv() else { break };
        bytes = bytes.saturating_add(job.size().bytes);
        group.push(job);
    }
    group
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::{
        super::{
            super::{Lease, Leases, ServerId},
            SqliteSettings, file,
        },
        *,
    };

    type Answer<T> = oneshot::Receiver<Result<T, StoreError>>;

    fn job<T: Send + 'static>(
        work: impl FnOnce(&mut Tables<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> (Box<dyn Job>, Answer<T>) {
        job_of(Changes::Several, work)
    }

    fn job_of<T: Send + 'static>(
        changes: Changes,
        work: impl FnOnce(&mut Tables<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> (Box<dyn Job>, Answer<T>) {
        let (reply, answer) = oneshot::channel();
        (
            Box::new(Request {
                size: Size::of(changes),
                stage: Stage::Waiting(work),
                reply,
            }),
            answer,
        )
    }

    fn lease(name: &str) -> (Box<dyn Job>, Answer<Leases>) {
        let lease = Lease {
            server: ServerId::random(),
            name: name.to_owned(),
            lapsed: Vec::new(),
        };
        job(move |tables| tables.lease(&lease))
    }

    fn refused() -> (Box<dyn Job>, Answer<()>) {
        job(|_| Err(StoreError::rejected("injected").into()))
    }

    fn state(folder: &tempfile::TempDir) -> State {
        let (path, settings) = (folder.path().join("players.db"), SqliteSettings::default());
        let database = file::open(&path, settings).unwrap();
        let folding = file::open_for_folding(&database.path, settings).unwrap();
        let checkpointer = Checkpointer::start(folding, &database.path).unwrap();
        State::new(database, checkpointer)
    }

    fn servers(state: &State) -> i64 {
        state
            .connection
            .query_row("SELECT count(*) FROM servers", [], |row| row.get(0))
            .unwrap()
    }

    fn is_unavailable<T>(mut answer: Answer<T>) -> bool {
        matches!(answer.try_recv(), Ok(Err(StoreError::Unavailable { .. })))
    }

    #[test]
    fn when_sqlite_gives_the_transaction_up_everybody_in_it_is_told_unavailable() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = state(&folder);
        let (first, first_answer) = lease("first");
        let (refused, refused_answer) = refused();
        // What SQLite does by itself on a full disk or failed I/O.
        let (culprit, culprit_answer) = job::<()>(|tables| {
            tables.connection.execute_batch("ROLLBACK")?;
            Err(StoreError::corrupt("injected").into())
        });
        let (last, last_answer) = lease("last");
        state.run(vec![first, refused, culprit, last]);

        assert!(is_unavailable(first_answer), "its work is gone");
        assert!(
            is_unavailable(refused_answer),
            "its refusal may rest on work that is gone"
        );
        assert!(is_unavailable(culprit_answer));
        assert!(
            is_unavailable(last_answer),
            "it must not run outside of a transaction"
        );
        assert_eq!(servers(&state), 0);
        assert!(state.connection.is_autocommit());

        let (next, mut next_answer) = lease("next");
        state.run(vec![next]);
        assert!(next_answer.try_recv().unwrap().is_ok(), "the writer goes on");
    }

    #[test]
    fn a_request_that_does_more_than_it_said_is_undone_with_everybody() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = state(&folder);
        let (first, first_answer) = lease("first");
        let two_changes = |tables: &mut Tables<'_>| {
            tables.connection.execute_batch("CREATE TABLE half (done)")?;
            tables.connection.execute_batch("INSERT INTO half VALUES (1)")?;
            Err(StoreError::rejected("injected").into())
        };
        let (culprit, culprit_answer) = job_of::<()>(Changes::Single, two_changes);
        state.run(vec![first, culprit]);

        assert!(is_unavailable(first_answer), "its work is gone");
        assert!(is_unavailable(culprit_answer));
        assert_eq!(servers(&state), 0, "nothing of it stays");
        let half = "SELECT count(*) FROM sqlite_schema WHERE name = 'half'";
        let tables: i64 = state.connection.query_row(half, [], |row| row.get(0)).unwrap();
        assert_eq!(tables, 0, "nothing is half done");
    }

    #[test]
    fn when_the_commit_fails_everybody_in_it_is_told_unavailable() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = state(&folder);
        let deferred = "PRAGMA foreign_keys = ON; CREATE TABLE parent (id INTEGER PRIMARY KEY);
            CREATE TABLE child (id INTEGER REFERENCES parent DEFERRABLE INITIALLY DEFERRED)";
        state.connection.execute_batch(deferred).unwrap();
        let (first, first_answer) = lease("first");
        let (refused, refused_answer) = refused();
        let (culprit, culprit_answer) =
            job(|tables| Ok(tables.connection.execute_batch("INSERT INTO child VALUES (7)")?));
        state.run(vec![first, refused, culprit]);

        assert!(is_unavailable(first_answer), "its work is not durable");
        assert!(
            is_unavailable(refused_answer),
            "its refusal may rest on work that is gone"
        );
        assert!(is_unavailable(culprit_answer));
        assert_eq!(servers(&state), 0);
        assert!(
            state.connection.is_autocommit(),
            "the transaction was rolled back"
        );
    }

    #[test]
    fn a_name_is_given_back_only_once_the_retirement_is_durable() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = state(&folder);
        let server = ServerId::random();
        let arena = Lease {
            server,
            name: "arena".to_owned(),
            lapsed: Vec::new(),
        };
        let (first, _answer) = job(move |tables| tables.lease(&arena));
        state.run(vec![first]);

        let retire_and = |end: &'static str| {
            let (retire, _) = job(move |tables| tables.retire(server));
            let (end, _) = job::<()>(move |tables| {
                tables.connection.execute_batch(end)?;
                Err(StoreError::corrupt("injected").into())
            });
            vec![retire, end]
        };
        let mut rival = Names::beside(&state.path);
        state.run(retire_and("ROLLBACK"));
        let refused = rival.take("arena", ServerId::random());
        assert!(
            matches!(refused, Err(StoreError::NameTaken { .. })),
            "the row is still there: {refused:?}"
        );
        state.run(retire_and(""));
        rival.take("arena", ServerId::random()).expect("the row is gone");
    }
}
