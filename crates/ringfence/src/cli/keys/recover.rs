//! `ringfence keys recover`.

use std::io::{self, BufRead, IsTerminal, Write};

use clap::Args;

use super::super::output::{fields, names, table};
use super::super::{Context, pick};
use super::{describe, registrations, reservation};
use crate::control::model::{KeysCopy, KeysRecovery};
use crate::control::protocol::Request;
use crate::failure::Failure;
use crate::names::object_name;

/// `keys recover`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ringfence keys recover shared --from disk2 --dry-run      only show what would be lost
  ringfence keys recover shared --from disk2

Only for a volume that is not served because too few copies of its keys are left, or because they contradict
one another. First try to bring the missing devices back ('ringfence device online'): then nothing is lost.

What the chosen copy does not have is lost: a registration, a reservation, or a fence. Make sure that no
machine writes to the volume that has been fenced from it. After it every registrant is told
(PERSISTENT RESERVATION INFORMATION LOST) until one of them sends REPLACE LOST RESERVATION. Where the cluster
software does not know how to, --clear (at once or later, without --from) does it in its place.")]
pub struct RecoverArgs {
    /// The volume's name
    #[arg(value_parser = object_name)]
    pub volume: String,
    /// The device whose copy is taken
    #[arg(long, value_name = "DEV", value_parser = object_name, required_unless_present = "clear")]
    pub from: Option<String>,
    /// Drop all registrations and the reservation, for initiators that cannot REPLACE LOST RESERVATION
    #[arg(long)]
    pub clear: bool,
    /// Show what would be lost, and do nothing
    #[arg(long, conflicts_with = "yes")]
    pub dry_run: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// Carries `keys recover` out.
pub(super) fn run(context: &Context, args: RecoverArgs) -> Result<(), Failure> {
    let RecoverArgs {
        volume,
        from,
        clear,
        dry_run,
        yes,
    } = args;
    let Some(from) = from else {
        return clear_lost(context, volume, dry_run, yes);
    };
    let request = Request::KeysRecoverShow {
        volume: volume.clone(),
        from: from.clone(),
    };
    let recovery = context.ask_for(request, pick!(Answer::KeysRecovery))?;
    if dry_run {
        return context.output.show(&recovery, loss);
    }
    show_first(context, &loss(&recovery));
    if !yes {
        confirm(&volume)?;
    }
    let request = Request::KeysRecover {
        volume,
        from,
        proof: recovery.proof,
        clear,
    };
    let keys = context.ask_for(request, pick!(Answer::Keys))?;
    context.output.show(&keys, describe)
}

/// Ends the condition after a recovery for everybody.
fn clear_lost(context: &Context, volume: String, dry_run: bool, yes: bool) -> Result<(), Failure> {
    let request = Request::Keys {
        volume: volume.clone(),
    };
    let keys = context.ask_for(request, pick!(Answer::Keys))?;
    if dry_run {
        return context.output.show(&keys, describe);
    }
    let head = "All of these registrations and the reservation go:";
    show_first(
        context,
        &format!(
            "{head}

{}",
            describe(&keys)
        ),
    );
    if !yes {
        confirm(&volume)?;
    }
    let keys = context.ask_for(Request::KeysClearLost { volume }, pick!(Answer::Keys))?;
    context.output.show(&keys, describe)
}

/// Tells people what will happen. A program has `--dry-run` for that, and gets nothing but JSON on stderr.
fn show_first(context: &Context, text: &str) {
    if !context.output.json || io::stdin().is_terminal() {
        eprintln!("{text}\n");
    }
}

fn confirm(volume: &str) -> Result<(), Failure> {
    let nothing_done = || Failure::refused("nothing was changed");
    if !io::stdin().is_terminal() {
        return Err(nothing_done()
            .advise("nobody is there to ask; to go on without a question repeat it with --yes"));
    }
    eprint!("Type the name of the volume to go on: ");
    let mut answer = String::new();
    let asked = io::stderr()
        .flush()
        .and_then(|()| io::stdin().lock().read_line(&mut answer));
    match asked {
        Ok(_) if answer.trim() == volume => Ok(()),
        _ => Err(nothing_done()),
    }
}

/// What would be taken and what would be lost.
fn loss(recovery: &KeysRecovery) -> String {
    let head = fields(&[
        ("Volume", recovery.volume.clone()),
        ("Not served", recovery.reason.clone()),
    ]);
    let mut parts = vec![head, version("TAKEN", &recovery.chosen)];
    parts.extend(recovery.others.iter().map(|other| version("LOST", other)));
    if !recovery.unreadable.is_empty() {
        let rows = recovery
            .unreadable
            .iter()
            .map(|replica| vec![replica.device.clone(), replica.state.clone()]);
        parts.push(format!(
            "Copies that cannot be read may be newer; what only they know is LOST:\n{}",
            table(&["COPY ON", "STATE"], &[], rows)
        ));
    }
    parts.join("\n\n")
}

fn version(what: &str, copy: &KeysCopy) -> String {
    format!(
        "{}\n{}",
        fields(&[
            (what, format!("the copy on {}", names(&copy.devices))),
            ("Sequence", copy.sequence.to_string()),
            ("Generation", copy.generation.to_string()),
            ("Reservation", reservation(copy.reservation.as_ref())),
        ]),
        registrations(&copy.registrations)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::model::{KeysRegistration, KeysReplica, KeysReservation};

    #[test]
    fn both_versions_of_a_fork_and_what_cannot_be_read_are_shown() {
        let copy = |device: &str, key: &str| KeysCopy {
            devices: vec![device.to_owned()],
            sequence: 9,
            generation: 3,
            reservation: Some(KeysReservation {
                kind: "write-exclusive".to_owned(),
                key: key.to_owned(),
                holder: Some("iqn.x:a".to_owned()),
            }),
            registrations: vec![KeysRegistration {
                key: key.to_owned(),
                initiator: "iqn.x:a".to_owned(),
                isid: "0x00023d000001".to_owned(),
                target_port: 1,
                aptpl: true,
                holder: true,
            }],
        };
        let recovery = KeysRecovery {
            volume: "shared".to_owned(),
            reason: "fork".to_owned(),
            chosen: copy("d1", "0x0a"),
            others: vec![copy("d2", "0x0b")],
            unreadable: vec![KeysReplica {
                device: "d3".to_owned(),
                state: "missing".to_owned(),
                sequence: None,
            }],
            proof: 1,
        };
        insta::assert_snapshot!(loss(&recovery), @r"
        Volume      shared
        Not served  fork

        TAKEN        the copy on d1
        Sequence     9
        Generation   3
        Reservation  write-exclusive, held by iqn.x:a with key 0x0a
        KEY   INITIATOR  ISID            PORT  APTPL  HOLDER
        0x0a  iqn.x:a    0x00023d000001     1  yes    yes

        LOST         the copy on d2
        Sequence     9
        Generation   3
        Reservation  write-exclusive, held by iqn.x:a with key 0x0b
        KEY   INITIATOR  ISID            PORT  APTPL  HOLDER
        0x0b  iqn.x:a    0x00023d000001     1  yes    yes

        Copies that cannot be read may be newer; what only they know is LOST:
        COPY ON  STATE
        d3       missing
        ");
    }
}
