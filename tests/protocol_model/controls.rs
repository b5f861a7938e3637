//! The controls: a model without one mechanism has to be found out, by the property that is named here.

use crate::{
    Mechanism,
    commits::{self, Commits},
    leases::{self, Leases},
    run::{self, Tally},
};

fn commits_without(mechanism: Mechanism, budget: commits::Budget, property: &'static str) {
    let model = Commits {
        budget,
        without: Some(mechanism),
        judged_by: Some(property),
        tally: Tally::silent(),
    };
    run::is_found_out(mechanism, model, property);
}

fn leases_without(mechanism: Mechanism, budget: leases::Budget, property: &'static str) {
    let model = Leases {
        budget,
        without: Some(mechanism),
        judged_by: Some(property),
        tally: Tally::silent(),
    };
    run::is_found_out(mechanism, model, property);
}

/// Nothing but loads and closes.
const PLAIN: commits::Budget = commits::Budget {
    loads: 1,
    ops: 0,
    saves: 0,
    awards: 0,
    trades: 0,
    faults: 0,
};

/// A save that was taken over on its way meets a row that is free again and whose last write had the same number: it
/// passes for one that has landed.
#[test]
fn control_without_fences_a_save_that_never_landed_is_acknowledged() {
    let budget = commits::Budget {
        loads: 2,
        ops: 1,
        ..PLAIN
    };
    commits_without(Mechanism::Fence, budget, commits::oracle::ACKNOWLEDGED);
}

#[test]
fn control_without_sequence_numbers_a_late_attempt_overwrites_a_newer_save() {
    let budget = commits::Budget {
        ops: 2,
        faults: 1,
        ..PLAIN
    };
    commits_without(Mechanism::Sequence, budget, commits::oracle::ACKNOWLEDGED);
}

#[test]
fn control_with_replies_before_the_disk_a_power_cut_loses_acknowledged_saves() {
    let budget = commits::Budget {
        ops: 1,
        faults: 1,
        ..PLAIN
    };
    commits_without(Mechanism::DurableReply, budget, commits::oracle::ACKNOWLEDGED);
}

#[test]
fn control_with_two_transactions_per_award_a_purchase_is_awarded_twice() {
    let budget = commits::Budget {
        loads: 2,
        awards: 2,
        saves: 2,
        ..PLAIN
    };
    commits_without(
        Mechanism::OneTransactionPerAward,
        budget,
        commits::oracle::AWARDED_ONCE,
    );
}

#[test]
fn control_with_two_commits_per_trade_it_is_torn() {
    let budget = commits::Budget {
        loads: 2,
        trades: 1,
        ..PLAIN
    };
    commits_without(Mechanism::OneCommitPerTrade, budget, commits::oracle::TRADE);
}

#[test]
fn control_without_lapsing_leases_a_crash_locks_its_players_out() {
    let budget = commits::Budget { faults: 1, ..PLAIN };
    commits_without(Mechanism::LapsingLeases, budget, commits::oracle::LOADABLE);
}

/// The first server's clock is an hour ahead. With fences nothing is lost by that, but nobody keeps a session.
#[test]
fn control_with_wall_clocks_a_server_that_beats_loses_its_lock() {
    let budget = leases::Budget {
        servers: 2,
        loads: 2,
        time: 1,
        faults: 0,
    };
    leases_without(Mechanism::ObservedBeats, budget, leases::oracle::NOT_ROBBED);
}

#[test]
fn control_with_claims_that_name_no_beat_a_server_that_is_back_loses_its_lock() {
    let budget = leases::Budget {
        servers: 2,
        loads: 2,
        time: 2,
        faults: 1,
    };
    leases_without(Mechanism::BeatNamedByClaim, budget, leases::oracle::NOT_ROBBED);
}

#[test]
fn control_without_an_end_an_acquire_locks_a_player_for_nobody() {
    let budget = leases::Budget {
        servers: 1,
        loads: 1,
        time: 3,
        faults: 1,
    };
    leases_without(Mechanism::EndOfAcquire, budget, leases::oracle::ANSWERED_FOR);
}

#[test]
fn control_without_suspects_an_unanswered_acquire_locks_a_player_for_good() {
    let budget = leases::Budget {
        servers: 2,
        loads: 2,
        time: 1,
        faults: 1,
    };
    leases_without(Mechanism::Suspects, budget, leases::oracle::LOADABLE);
}

/// Once beats are answered again, an attempt may end earlier than the one before it, which was sent while they were not.
#[test]
fn control_with_suspicions_as_long_as_the_last_attempt_an_earlier_one_locks_a_player_for_nobody() {
    let budget = leases::Budget {
        servers: 1,
        loads: 1,
        time: 6,
        faults: 4,
    };
    leases_without(Mechanism::LongestSuspicion, budget, leases::oracle::ANSWERED_FOR);
}
