//! The task of a domain: inputs in, actions out, one after the other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fencing::coordinator::{Action, Coordinator, Input};
use futures_lite::future;
use reactor::{sleep_until, spawn_local};
use uuid::Uuid;

use super::running::{Item, Running};
use super::{Domains, carry_out, mailbox, tell};

/// Runs a domain until it is told to stop.
pub(super) async fn run(domains: Arc<Domains>, running: Arc<Running>) {
    let started = Instant::now();
    // A daemon does not run for half a billion years.
    let now_ms = || u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let domain = running.domain().as_ref().clone();
    let mut coordinator = Coordinator::resume(domain, now_ms());
    let mailbox = spawn_local(mailbox::run(Arc::clone(&domains), Arc::clone(&running)));
    loop {
        while let Some(action) = coordinator.poll() {
            perform(&domains, &running, action);
        }
        let rung = running.listen();
        match running.take() {
            Some(Item::Input(input)) => coordinator.handle(input, now_ms()),
            Some(Item::Return {
                member,
                incarnation,
            }) => {
                if coordinator.may_return(&member, incarnation) {
                    let id = Uuid::new_v4();
                    coordinator.handle(Input::Unfence { id, member }, now_ms());
                }
            }
            Some(Item::Stop { force, answer }) => {
                let stopped = force || coordinator.is_idle();
                // Whoever asked may have lost patience: then the domain has stopped all the same.
                let _ = answer.send(stopped);
                if stopped {
                    drop(mailbox);
                    running.end();
                    return;
                }
            }
            None => match coordinator.next_wake_ms() {
                None => rung.await,
                Some(wake_ms) if wake_ms <= now_ms() => coordinator.handle(Input::Time, now_ms()),
                Some(wake_ms) => {
                    let wake = started + Duration::from_millis(wake_ms);
                    future::or(rung, sleep_until(wake)).await;
                }
            },
        }
    }
}

/// Starts an action; its answer comes through the inbox.
fn perform(domains: &Arc<Domains>, running: &Arc<Running>, action: Action) {
    match action {
        Action::Reply { id, member, reply } => running.reply(id, member.as_deref(), reply),
        Action::Event(event) => {
            running.note(&event);
            let what = tell::what(&running.domain(), event, &mut running.askers.lock());
            domains.record(what);
        }
        other => {
            let (domains, running) = (Arc::clone(domains), Arc::clone(running));
            // It ends by itself, and a late answer changes nothing.
            drop(spawn_local(async move {
                // On the heap: some actions are large.
                let work = Box::pin(carry_out::action(&domains, &running, other));
                if let Some(input) = work.await {
                    running.input(input);
                }
            }));
        }
    }
}
