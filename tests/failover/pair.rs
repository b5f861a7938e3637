//! A primary and its standby, which change places.

use std::{thread, time::Duration};

use super::{
    postgres::Cluster,
    proxy::{Mode, Proxy},
};

/// Whether a commit waits for the standby.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replication {
    Synchronous,
    Asynchronous,
}

/// Two places, each on a port of its own for as long as the test lasts.
pub(crate) struct Pair {
    primary: Cluster,
    standby: Cluster,
    /// What replication runs over. Stalls shortly before some of the kills.
    cable: Proxy,
    replication: Replication,
    ports: [u16; 2],
}

const DATABASE: &str = "players";

impl Pair {
    pub(crate) fn new(replication: Replication) -> Self {
        let primary = Cluster::start(&[]);
        primary.configure("pg_hba.conf", "host replication all 127.0.0.1/32 trust");
        primary.tell("SELECT pg_reload_conf()");
        primary.tell(&format!("CREATE DATABASE {DATABASE}"));
        let cable = Proxy::to(primary.port);
        let standby = Cluster::standby_of(cable.port, "standby", None);
        let ports = [primary.port, standby.port];
        let mut pair = Self {
            primary,
            standby,
            cable,
            replication,
            ports,
        };
        pair.attach();
        pair
    }

    /// Both places, as libpq spells them.
    pub(crate) fn url(&self) -> String {
        let [first, second] = self.ports;
        format!(
            "postgres://postgres@127.0.0.1:{first},127.0.0.1:{second}/{DATABASE}?target_session_attrs=read-write"
        )
    }

    /// The place that has to take over.
    pub(crate) fn standby_url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{DATABASE}", self.standby.port)
    }

    /// Serves the standby and makes commits wait for it, if they are to.
    fn attach(&mut self) {
        self.standby.serve(&["hot_standby=on"]);
        let names = match self.replication {
            Replication::Synchronous => "standby",
            Replication::Asynchronous => "",
        };
        self.primary
            .tell(&format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'"));
        self.primary.tell("SELECT pg_reload_conf()");
        let state = match self.replication {
            Replication::Synchronous => "sync",
            Replication::Asynchronous => "async",
        };
        self.primary.wait_until("the standby follows", || {
            let streams = format!(
                "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = '{state}'"
            );
            self.primary.ask(&streams).as_deref() == Some("1")
        });
    }

    /// Lets the standby fall behind from now on.
    pub(crate) fn stall(&self) {
        self.cable.set(Mode::Hangs);
    }

    /// `kill -9`. Returns when the standby has replayed all that it has received.
    pub(crate) fn kill_primary(&mut self) {
        self.primary.kill();
        self.cable.set(Mode::IsCut);
        self.standby.wait_until("it has replayed what it has", || {
            let caught_up = "SELECT pg_last_wal_receive_lsn() IS NULL
                OR pg_last_wal_replay_lsn() >= pg_last_wal_receive_lsn()";
            self.standby.ask(caught_up).as_deref() == Some("t")
        });
    }

    /// Makes the standby the primary.
    pub(crate) fn promote(&mut self) {
        // It has no standby of its own yet, and waits for none.
        self.standby.forget_settings();
        self.standby.promote();
        std::mem::swap(&mut self.primary, &mut self.standby);
    }

    /// Lets the old primary come back as if nothing had happened, and says how many commits it takes in a while.
    pub(crate) fn let_the_old_primary_come_back(&mut self, query: &str) -> [Option<String>; 2] {
        self.standby.serve(&["synchronous_standby_names=standby"]);
        let before = self.standby.ask_database(DATABASE, query);
        thread::sleep(Duration::from_millis(700));
        let after = self.standby.ask_database(DATABASE, query);
        self.standby.kill();
        [before, after]
    }

    /// Gives the old primary's place to a new standby.
    pub(crate) fn replace_standby(&mut self) {
        let port = self.standby.port;
        self.cable = Proxy::to(self.primary.port);
        let new = Cluster::standby_of(self.cable.port, "standby", Some(port));
        self.standby = new;
        self.attach();
    }
}
