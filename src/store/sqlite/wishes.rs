//! The table of wishes: what the writer does to it, and the look that servers take many times a second.

use std::cell::RefCell;

use rusqlite::{Connection, Row};

use super::{
    super::{LockId, ServerId, Wish, Wished, Wishes, rules},
    error::Failure,
    row::{column, count},
    tables::{Tables, sql},
};
use crate::id::PlayerId;

impl Tables<'_> {
    pub(super) fn wish(&mut self, wish: &Wish) -> Result<bool, Failure> {
        let held = self.find(wish.player)?.and_then(|found| found.state.held);
        let own = self.lease_of(wish.server)?;
        if !rules::stands(wish, held, own.as_ref()) {
            return Ok(false);
        }
        // "Until ever" is as good as the largest number that fits a column.
        let until_beat = sql(wish.until_beat.min(rules::LARGEST))?;
        self.execute(
            "INSERT INTO wishes (player_id, lock_id, held, server, until_beat) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (player_id, lock_id)
             DO UPDATE SET held = excluded.held, server = excluded.server, until_beat = excluded.until_beat",
            (
                wish.player.into_bytes(),
                wish.lock.into_bytes(),
                wish.held.into_bytes(),
                wish.server.into_bytes(),
                until_beat,
            ),
        )?;
        Ok(true)
    }

    pub(super) fn withdraw(&self, player: PlayerId, lock: LockId) -> Result<(), Failure> {
        self.execute(
            "DELETE FROM wishes WHERE player_id = ?1 AND lock_id = ?2",
            (player.into_bytes(), lock.into_bytes()),
        )
    }
}

/// What the last look for wishes has seen, so that one at an unchanged file reads no table.
#[derive(Default)]
pub(super) struct LastWishes(RefCell<Option<Seen>>);

struct Seen {
    data_version: i64,
    server: ServerId,
    wishes: Wishes,
}

impl LastWishes {
    /// The wishes that stand and concern this server.
    pub(super) fn wishes(&self, connection: &Connection, server: ServerId) -> Result<Wishes, Failure> {
        // SQLite raises this number when another connection, of whichever process, has committed.
        let data_version: i64 = connection
            .prepare_cached("PRAGMA data_version")?
            .query_row([], |row| row.get(0))?;
        let mut last = self.0.borrow_mut();
        if let Some(seen) = &*last
            && (seen.data_version, seen.server) == (data_version, server)
        {
            return Ok(seen.wishes.clone());
        }
        let wishes = wishes(connection, server)?;
        *last = Some(Seen {
            data_version,
            server,
            wishes: wishes.clone(),
        });
        Ok(wishes)
    }
}

/// The wishes that stand, as [`rules::stands`] judges them, and concern a server. (`CROSS` keeps SQLite to this order:
/// what is read whole is the table that hardly holds anything.)
const STANDING: &str = "
    SELECT wish.player_id, wish.held, wish.lock_id, wish.server, wish.until_beat, own.name
    FROM wishes AS wish
    CROSS JOIN players AS player ON player.player_id = wish.player_id
    CROSS JOIN servers AS own ON own.boot_id = wish.server
    WHERE player.lock_id = wish.held AND player.server <> wish.server AND own.beat <= wish.until_beat
        AND ?1 IN (player.server, wish.server)
    ORDER BY wish.player_id, wish.lock_id";

fn wishes(connection: &Connection, server: ServerId) -> Result<Wishes, Failure> {
    let mut statement = connection.prepare_cached(STANDING)?;
    let mut rows = statement.query([server.into_bytes()])?;
    let mut wishes = Wishes::default();
    while let Some(row) = rows.next()? {
        let Wished { wish, name } = match wished(row) {
            // Only another program can have written it, and it must not stand in the way of all others.
            Err(Failure::Malformed(problem)) => {
                tracing::debug!("a wish is left out: {problem}");
                continue;
            }
            wished => wished?,
        };
        if wish.server == server {
            wishes.ours.push(wish.lock);
        } else {
            wishes.for_us.push(Wished { wish, name });
        }
    }
    wishes.ours.sort_unstable();
    Ok(wishes)
}

fn wished(row: &Row<'_>) -> Result<Wished, Failure> {
    let whose = "a wish";
    Ok(Wished {
        wish: Wish {
            player: PlayerId::from_bytes(column(row, 0, whose)?),
            held: LockId::from_bytes(column(row, 1, whose)?),
            lock: LockId::from_bytes(column(row, 2, whose)?),
            server: ServerId::from_bytes(column(row, 3, whose)?),
            until_beat: count(row, 4, whose)?,
        },
        name: column(row, 5, whose)?,
    })
}

#[cfg(test)]
mod tests {
    use super::{
        super::{SqliteSettings, file},
        *,
    };

    #[test]
    fn a_look_at_a_file_that_nobody_has_changed_reads_no_table() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("players.db");
        let reader = file::open(&path, SqliteSettings::default()).unwrap().connection;
        let (look, server) = (LastWishes::default(), ServerId::random());
        assert_eq!(look.wishes(&reader, server).unwrap(), Wishes::default());

        // What this very connection does is no change to it, and without the table it could read nothing.
        reader
            .execute_batch("ALTER TABLE wishes RENAME TO elsewhere")
            .unwrap();
        assert_eq!(look.wishes(&reader, server).unwrap(), Wishes::default());
        assert!(
            look.wishes(&reader, ServerId::random()).is_err(),
            "another question"
        );
    }

    #[test]
    fn a_look_reads_the_wishes_and_finds_what_they_are_about_by_keys() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("players.db");
        let connection = file::open(&path, SqliteSettings::default()).unwrap().connection;
        let mut statement = connection
            .prepare(&format!("EXPLAIN QUERY PLAN {STANDING}"))
            .unwrap();
        let details = statement
            .query_map([[0_u8; 16]], |row| row.get::<_, String>(3))
            .unwrap();
        let plan = details.map(Result::unwrap).collect::<Vec<_>>();
        assert!(
            matches!(&plan[..], [wish, player, own] if wish.starts_with("SCAN wish")
                && player.starts_with("SEARCH player USING INDEX")
                && own.starts_with("SEARCH own USING INDEX")),
            "{plan:?}"
        );
    }
}
