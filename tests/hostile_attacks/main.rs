//! A plugin under another user id attacks for a while, in each of the ways that the table of failures knows.
//!
//! Beside it, a host and two other plugins exchange messages, publish, and use a store. Asserted: nothing crashes;
//! every call of host and neighbours ends by its deadline; everything that is read is right; the host stops all in
//! order; nothing is left. `RINGWAY_ATTACK_SECONDS` says how long each attack lasts (1). Each test has a process
//! of its own, because it counts what its process has. All need root, and say so where they are skipped.
#![allow(unsafe_code, missing_docs)]
#![allow(dead_code, reason = "the bench of the same attacks uses all of them")]

mod attack;
#[path = "../common/mod.rs"]
mod common;
mod neighbour;
mod pace;
mod scene;

use attack::Attack;
use common::plugin::{alone, may_switch_user};
use scene::Scene;

/// Where the process of a plugin starts; does nothing in the process that runs the tests.
#[test]
fn plugin_entry() {
    attack::play();
    neighbour::play();
}

/// Whether this process is the one that runs the test.
fn runs(test: &str) -> bool {
    may_switch_user() && alone(test)
}

/// Tables come and go while their generation passes a bound.
fn clear_from(start: u64) {
    let told = Scene::with_generation(start).attacked(Attack::Clear);
    let passed = told.generation.wrapping_sub(start);
    assert!(passed > 50 && passed < 1 << 40, "the generation has passed the bound by {passed}");
}

#[test]
fn f47_generation_passes_24_bits_under_attack() {
    if runs("f47_generation_passes_24_bits_under_attack") {
        clear_from((1 << 24) - 50);
    }
}

#[test]
fn f47_generation_passes_64_bits_under_attack() {
    if runs("f47_generation_passes_64_bits_under_attack") {
        clear_from(u64::MAX - 50);
    }
}

#[test]
fn f48_another_user_waits_on_every_word() {
    if runs("f48_another_user_waits_on_every_word") {
        Scene::new().attacked(Attack::Wait);
    }
}

#[test]
fn f48_another_user_requeues_every_sleeper() {
    if runs("f48_another_user_requeues_every_sleeper") {
        Scene::new().attacked(Attack::Requeue);
    }
}

#[test]
fn f48_another_user_makes_wakes_fail() {
    if runs("f48_another_user_makes_wakes_fail") {
        Scene::new().attacked(Attack::RequeuePi);
    }
}

#[test]
fn f53_files_of_huge_pages_lose_their_memory() {
    if runs("f53_files_of_huge_pages_lose_their_memory") {
        Scene::new().attacked(Attack::HugePages);
    }
}

#[test]
fn f54_files_that_never_answer_are_handed_over() {
    if runs("f54_files_that_never_answer_are_handed_over") {
        Scene::new().attacked(Attack::Silent);
    }
}

#[test]
fn f63_an_orphan_stops_every_successor() {
    if runs("f63_an_orphan_stops_every_successor") {
        let told = Scene::new().attacked(Attack::StopStarts);
        println!("  {} starts failed, {} succeeded", told.failed_starts, told.restarts);
    }
}

#[test]
fn f70_streams_are_full_and_changed() {
    if runs("f70_streams_are_full_and_changed") {
        let told = Scene::new().attacked(Attack::Streams);
        assert!(told.restarts > 1, "each incarnation has pipes of its own");
    }
}

#[test]
fn f91_subscriptions_that_nobody_reads() {
    if runs("f91_subscriptions_that_nobody_reads") {
        let told = Scene::new().attacked(Attack::Subscribe);
        assert!(told.dropped > 0, "no queue was full");
        assert!(told.hits > 8, "both topics have its subscriptions");
    }
}
