//! Hooks at the turning points of a plugin's life: each once, in order, whatever they do.
//!
//! This test binary is executed again as the plugin. What always holds: a plugin is ended by its
//! host at the end of each test, also where the test fails.
#![allow(unsafe_code, missing_docs)]

mod common;

use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::Duration;

use common::plugin::{self, KILLED, NEVER, restarts};
use ringway::error::ExitReason;
use ringway::host::Moment::{
    self, AfterRestart, AfterShutdown, AfterStart, BeforeRestart, BeforeShutdown, BeforeStart,
};
use ringway::host::{HandleError, Host, HostEventKind, PluginSpec, PluginState, SpawnError};

/// Where the plugin's process starts; does nothing in the process that runs the tests.
#[test]
fn plugin_entry() {
    plugin::run_role();
}

const MOMENTS: [Moment; 6] =
    [BeforeStart, AfterStart, BeforeRestart, AfterRestart, BeforeShutdown, AfterShutdown];

const TERMINATED: ExitReason = ExitReason::Signal(libc::SIGTERM);

/// What a hook was told: moment, incarnation, whether there is a process, how the last one ended.
type Told = (Moment, u32, bool, Option<ExitReason>);

/// Writes down what it is told.
#[derive(Debug, Clone, Default)]
struct Diary(Arc<Mutex<Vec<Told>>>);

impl Diary {
    fn of(&self, mut spec: PluginSpec) -> PluginSpec {
        for moment in MOMENTS {
            let diary = self.clone();
            spec = spec.hook(moment, move |occasion| {
                assert_eq!(occasion.moment, moment);
                let has_pid = occasion.pid.is_some();
                let told = (moment, occasion.incarnation, has_pid, occasion.reason);
                diary.0.lock().unwrap().push(told);
            });
        }
        spec
    }

    fn read(&self) -> Vec<Told> {
        self.0.lock().unwrap().clone()
    }

    fn moments(&self) -> Vec<Moment> {
        self.read().iter().map(|told| told.0).collect()
    }
}

/// Waits for the event that says so.
fn wait_for_restart(host: &Host) {
    while !matches!(host.next_event(NEVER).unwrap().kind, HostEventKind::Restarted { .. }) {}
}

#[test]
fn each_moment_is_told_once_and_in_order() {
    let (diary, host) = (Diary::default(), plugin::host());
    let handle = host.spawn(diary.of(plugin::spec("p", "echo")).restart(restarts(5))).unwrap();
    handle.kill().unwrap();
    wait_for_restart(&host);
    handle.restart().unwrap();
    wait_for_restart(&host);
    assert_eq!(handle.terminate(), Ok(TERMINATED));
    handle.terminate().unwrap();
    drop(host);
    let expected = [
        (BeforeStart, 0, false, None),
        (AfterStart, 1, true, None),
        // It is dead.
        (BeforeRestart, 1, false, Some(KILLED)),
        (AfterRestart, 2, true, Some(KILLED)),
        // It is about to be told.
        (BeforeRestart, 2, true, Some(KILLED)),
        (AfterRestart, 3, true, Some(TERMINATED)),
        (BeforeShutdown, 3, true, Some(TERMINATED)),
        (AfterShutdown, 3, false, Some(TERMINATED)),
    ];
    assert_eq!(diary.read(), expected);
}

#[test]
fn a_plugin_that_ends_by_itself_has_no_before() {
    let (diary, host) = (Diary::default(), plugin::host());
    let handle = host.spawn(diary.of(plugin::spec("brief", "exit-when-ready"))).unwrap();
    assert_eq!(handle.wait_exit(NEVER), Ok(ExitReason::Code(0)));
    drop(host);
    assert_eq!(diary.moments(), [BeforeStart, AfterStart, AfterShutdown]);
}

#[test]
fn a_restart_of_several_attempts_is_one_and_a_start_that_fails_none() {
    let (diary, host) = (Diary::default(), plugin::host());
    let missing = plugin::spec_of("missing", Command::new("/nonexistent"));
    assert!(matches!(host.spawn(diary.of(missing)), Err(SpawnError::Exec { .. })));
    assert_eq!(diary.moments(), [BeforeStart]);
    // Each incarnation fails before anybody could use it.
    let diary = Diary::default();
    let spec = diary.of(plugin::spec("weak", "fail-when-ready")).restart(restarts(3));
    let handle = host.spawn(spec).unwrap();
    assert_eq!(handle.wait_exit(NEVER), Ok(ExitReason::Code(3)));
    drop(host);
    let moments = diary.moments();
    assert_eq!(moments[..2], [BeforeStart, AfterStart]);
    assert_eq!(moments.last(), Some(&AfterShutdown));
    for pair in moments[2..moments.len() - 1].chunks(2) {
        assert!(matches!(pair, [BeforeRestart, AfterRestart] | [BeforeRestart]), "{moments:?}");
    }
}

#[test]
fn hooks_of_the_host_come_first_and_each_in_the_order_in_which_it_was_set() {
    let calls = Arc::new(Mutex::new(Vec::new()));
    let note = |text: &'static str| {
        let calls = Arc::clone(&calls);
        move |_: &_| calls.lock().unwrap().push(text)
    };
    let host = Host::builder()
        .hook(AfterStart, note("host 1"))
        .hook(AfterStart, note("host 2"))
        .build()
        .unwrap();
    let spec = plugin::spec("p", "echo");
    let spec = spec.hook(AfterStart, note("plugin 1")).hook(AfterStart, note("plugin 2"));
    host.spawn(spec).unwrap();
    assert_eq!(*calls.lock().unwrap(), ["host 1", "host 2", "plugin 1", "plugin 2"]);
}

#[test]
fn f42_a_hook_that_panics_is_reported_and_stops_nothing() {
    let (diary, host) = (Diary::default(), plugin::host());
    let mut spec = plugin::spec("p", "echo").restart(restarts(5));
    for moment in MOMENTS {
        spec = spec.hook(moment, move |_| panic!("{moment:?} went wrong"));
    }
    let handle = host.spawn(diary.of(spec)).unwrap();
    handle.kill().unwrap();
    let mut reported = Vec::new();
    let mut take = |event: ringway::host::HostEvent| {
        let restarted = matches!(event.kind, HostEventKind::Restarted { .. });
        if let HostEventKind::HookPanicked { moment, message } = event.kind {
            assert_eq!(message, format!("{moment:?} went wrong"));
            reported.push(moment);
        }
        restarted
    };
    while !take(host.next_event(NEVER).unwrap()) {}
    assert_eq!(handle.terminate(), Ok(TERMINATED));
    while let Some(event) = host.next_event(Duration::ZERO) {
        take(event);
    }
    assert_eq!(reported, MOMENTS);
    assert_eq!(diary.moments(), MOMENTS, "the hooks behind them were called");
}

#[test]
fn a_hook_may_use_its_plugin_and_its_host() {
    let shared: Arc<OnceLock<Arc<Host>>> = Arc::default();
    let (told, results) = mpsc::channel();
    let mut spec = plugin::spec("p", "echo").restart(restarts(5));
    for moment in MOMENTS {
        let (shared, told) = (Arc::clone(&shared), told.clone());
        spec = spec.hook(moment, move |occasion| {
            let (plugin, host) = (&occasion.plugin, shared.get().unwrap());
            assert_eq!(plugin.name(), "p");
            let _ = (plugin.state(), plugin.pid(), plugin.restarts(), format!("{occasion:?}"));
            let _ = plugin.wait_exit(NEVER);
            let _ = host.next_event(Duration::ZERO);
            // Plugins of its own, under the same host.
            let name = format!("helper of {moment:?}");
            let helper = host.spawn(plugin::spec(&name, "echo")).unwrap();
            helper.terminate().unwrap();
            assert!(matches!(
                host.spawn(plugin::spec("p", "echo")),
                Err(SpawnError::Duplicate { .. }) | Ok(_)
            ));
            told.send(moment).unwrap();
        });
    }
    let host = Arc::new(plugin::host());
    shared.set(Arc::clone(&host)).unwrap();
    let handle = host.spawn(spec).unwrap();
    handle.kill().unwrap();
    for expected in &MOMENTS[..4] {
        assert_eq!(results.recv_timeout(NEVER).as_ref(), Ok(expected));
    }
    assert_eq!(handle.terminate(), Ok(TERMINATED));
    for expected in &MOMENTS[4..] {
        assert_eq!(results.recv_timeout(NEVER).as_ref(), Ok(expected));
    }
    // The hooks keep the host, so it is not dropped.
    host.shutdown(NEVER).unwrap();
}

#[test]
fn a_hook_may_end_its_own_plugin_and_does_not_wait_for_it() {
    for moment in [AfterStart, BeforeRestart, AfterRestart, BeforeShutdown] {
        let (told, results) = mpsc::channel();
        let (diary, host) = (Diary::default(), plugin::host());
        let spec = plugin::spec("p", "echo").restart(restarts(5)).hook(moment, move |occasion| {
            told.send(occasion.plugin.terminate()).unwrap();
            told.send(occasion.plugin.wait_exit(NEVER)).unwrap();
        });
        let handle = host.spawn(diary.of(spec)).unwrap();
        let _ = match moment {
            BeforeShutdown => handle.terminate().map(drop),
            _ => handle.kill(),
        };
        assert_eq!(results.recv_timeout(NEVER), Ok(Err(HandleError::InHook)));
        // It may have been dead, and so ended at once.
        let second = results.recv_timeout(NEVER).unwrap();
        assert!(matches!(second, Err(HandleError::InHook) | Ok(_)), "{second:?}");
        handle.wait_exit(NEVER).unwrap();
        drop(host);
        let moments = diary.moments();
        for once in [BeforeShutdown, AfterShutdown] {
            assert_eq!(moments.iter().filter(|&&of| of == once).count(), 1, "{moments:?}");
        }
        assert_eq!(moments.last(), Some(&AfterShutdown));
    }
}

#[test]
fn a_hook_may_shut_everything_down() {
    let shared: Arc<OnceLock<Arc<Host>>> = Arc::default();
    let host = Arc::new(plugin::host());
    shared.set(Arc::clone(&host)).unwrap();
    let (told, results) = mpsc::channel();
    let other = host.spawn(plugin::spec("other", "echo")).unwrap();
    let spec = plugin::spec("p", "echo").restart(restarts(5)).hook(AfterRestart, move |_| {
        told.send(shared.get().unwrap().shutdown(NEVER).unwrap()).unwrap();
    });
    let handle = host.spawn(spec).unwrap();
    handle.kill().unwrap();
    let report = results.recv_timeout(NEVER).unwrap();
    let found: Vec<_> = report.iter().map(|end| (end.plugin.as_str(), end.reason)).collect();
    assert_eq!(found, [("p", None), ("other", Some(TERMINATED))]);
    assert_eq!(other.state(), PluginState::Ended { reason: TERMINATED });
    handle.wait_exit(NEVER).unwrap();
}

#[test]
fn a_host_that_is_dropped_tells_its_hooks() {
    let (diary, host) = (Diary::default(), plugin::host());
    host.spawn(diary.of(plugin::spec("p", "echo"))).unwrap();
    drop(host);
    assert_eq!(diary.moments(), [BeforeStart, AfterStart, BeforeShutdown, AfterShutdown]);
}
