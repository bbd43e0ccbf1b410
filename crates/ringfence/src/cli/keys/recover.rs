//! `ringfence keys recover`.

use std::io::{self, BufRead, IsTerminal, Write};

use clap::Args;

use super::super::output::{fields, names, table};
use super::super::{Context, pick};
use super::{describe, registrations, reservation};
use crate::control::model::{KeysCopy, KeysRecovery, LostUntil};
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
machine writes to the volume that has been fenced from it. After it every initiator is told (PERSISTENT
RESERVATION INFORMATION LOST) until it registers anew; that lets in no other. It is over for all, also for
initiators without a registration, when somebody has registered and every registration of the copy was made
anew, or is preempted, unregistered or cleared. With --until replaced only REPLACE LOST RESERVATION ends it.
--clear, at once or later without --from, ends either form for all.")]
pub struct RecoverArgs {
    /// The volume's name
    #[arg(value_parser = object_name)]
    pub volume: String,
    /// The device whose copy is taken
    #[arg(long, value_name = "DEV", value_parser = object_name, required_unless_present = "clear")]
    pub from: Option<String>,
    /// What ends the condition that information was lost
    #[arg(
        long,
        value_enum,
        default_value_t,
        conflicts_with = "clear",
        requires = "from"
    )]
    pub until: LostUntil,
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
        until,
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
    let until = (!clear).then_some(until);
    let text =
        |recovery: &KeysRecovery| format!("{}\n\n{}", loss(recovery), afterwards(recovery, until));
    if dry_run {
        return context.output.show(&recovery, text);
    }
    show_first(context, &text(&recovery));
    if !yes {
        confirm(&volume)?;
    }
    let request = Request::KeysRecover {
        volume,
        from,
        proof: recovery.proof,
        clear,
        until: until.unwrap_or_default(),
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

/// What the initiators will meet then.
fn afterwards(recovery: &KeysRecovery, until: Option<LostUntil>) -> String {
    const TOLD: &str = "is told PERSISTENT RESERVATION INFORMATION LOST (44h/01h)";
    let volume = &recovery.volume;
    match until {
        None => "AFTERWARDS (--clear): nothing is registered or reserved. Every initiator may register, and write.\n\
             Whoever was fenced is fenced no more."
            .to_owned(),
        Some(LostUntil::Replaced) => format!(
            "AFTERWARDS (--until replaced): every initiator {TOLD}\n\
             until one sends REPLACE LOST RESERVATION, or you run 'ringfence keys recover {volume} --clear'.\n\
             Registering does not help."
        ),
        Some(LostUntil::Registered) => {
            let copy = &recovery.chosen;
            let end = match (copy.registrations.is_empty(), &copy.reservation) {
                (true, _) => {
                    "This copy has no registrations: THE FIRST NEW ONE ENDS IT FOR ALL. Then every initiator may write."
                }
                (false, None) => {
                    "It is over for all when every registration above was made anew, preempted, unregistered or cleared.\n\
                     This copy has no reservation: THEN EVERY INITIATOR MAY WRITE, unless one is made before."
                }
                (false, Some(_)) => {
                    "It is over for all when every registration above was made anew, preempted, unregistered or cleared.\n\
                     The reservation above stands meanwhile, and then."
                }
            };
            format!(
                "AFTERWARDS (--until registered): every initiator {TOLD}\n\
                 until it registers anew itself, which lets in no other.\n{end}\n\
                 If that is not what you want: --until replaced."
            )
        }
    }
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
        registrations(&copy.registrations, copy.lost_until)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::model::{KeysRegistration, KeysReplica, KeysReservation};

    fn copy(device: &str, key: &str) -> KeysCopy {
        KeysCopy {
            devices: vec![device.to_owned()],
            sequence: 9,
            generation: 3,
            lost_until: None,
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
                recovered: false,
            }],
        }
    }

    fn recovery() -> KeysRecovery {
        KeysRecovery {
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
        }
    }

    #[test]
    fn the_dialogue_says_what_ends_it_and_for_whom() {
        let mut copies = recovery();
        let held = afterwards(&copies, Some(LostUntil::Registered));
        assert!(held.contains("lets in no other") && held.contains("stands"));
        copies.chosen.reservation = None;
        let open = afterwards(&copies, Some(LostUntil::Registered));
        assert!(open.contains("EVERY INITIATOR MAY WRITE"), "{open}");
        copies.chosen.registrations.clear();
        let empty = afterwards(&copies, Some(LostUntil::Registered));
        assert!(empty.contains("THE FIRST NEW ONE"), "{empty}");
        let replaced = afterwards(&copies, Some(LostUntil::Replaced));
        assert!(
            replaced.contains("REPLACE LOST RESERVATION, or"),
            "{replaced}"
        );
        assert!(afterwards(&copies, None).contains("fenced no more"));
    }

    #[test]
    fn both_versions_of_a_fork_and_what_cannot_be_read_are_shown() {
        insta::assert_snapshot!(loss(&recovery()), @r"
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
