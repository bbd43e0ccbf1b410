//! `ringfence keys`, and `ringfence keys recover`.

mod recover;

use clap::{Args, Subcommand};

use super::output::{fields, table};
use super::{Context, pick};
use crate::control::model::{Keys, KeysRegistration, KeysReservation, LostUntil};
use crate::control::protocol::Request;
use crate::failure::Failure;
use crate::names::object_name;

/// `keys`.
#[derive(Debug, Args)]
#[command(
    after_help = "What is shown is read back from the devices, not from memory: it is what a restart would find.",
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub struct KeysArgs {
    /// The volume's name
    #[arg(value_parser = object_name, required = true)]
    pub volume: Option<String>,
    /// What else to do.
    #[command(subcommand)]
    pub command: Option<KeysCommand>,
}

/// The commands on keys.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Choose one copy of the keys of a volume that has lost its quorum
    Recover(recover::RecoverArgs),
}

/// Carries `keys` out.
pub fn run(context: &Context, args: KeysArgs) -> Result<(), Failure> {
    let volume = match args {
        KeysArgs {
            command: Some(KeysCommand::Recover(args)),
            ..
        } => return recover::run(context, args),
        // Clap requires the name where there is no subcommand.
        KeysArgs { volume, .. } => {
            volume.ok_or_else(|| Failure::usage("the name of a volume is missing"))?
        }
    };
    let request = Request::Keys { volume };
    let keys = context.ask_for(request, pick!(Answer::Keys))?;
    context.output.show(&keys, describe)
}

/// A private region in words, as `keys` and the demo show it.
pub fn describe(keys: &Keys) -> String {
    let mut rows = vec![("Volume", keys.volume.clone())];
    rows.extend(keys.reason.iter().map(|why| ("NOT SERVED", why.clone())));
    rows.extend(
        keys.lost_until
            .map(|until| ("LOST", lost(until).to_owned())),
    );
    if let Some(generation) = keys.generation {
        rows.extend([
            ("Generation", generation.to_string()),
            ("Reservation", reservation(keys.reservation.as_ref())),
        ]);
    }
    let quorum = &keys.quorum;
    rows.push((
        "Copies",
        format!(
            "{} of {} current, {} needed",
            quorum.current, quorum.of, quorum.needed
        ),
    ));
    let head = fields(&rows);
    let registrations = match keys.generation {
        None => "the registrations are not known".to_owned(),
        Some(_) => registrations(&keys.registrations, keys.lost_until),
    };
    let replicas = keys.replicas.iter().map(|replica| {
        let sequence = replica.sequence.map_or("-".to_owned(), |s| s.to_string());
        vec![replica.device.clone(), replica.state.clone(), sequence]
    });
    format!(
        "{head}\n\n{registrations}\n\n{}",
        table(&["REPLICA ON", "STATE", "SEQUENCE"], &[2], replicas)
    )
}

fn reservation(reservation: Option<&KeysReservation>) -> String {
    match reservation {
        None => "none".to_owned(),
        Some(reservation) => match &reservation.holder {
            Some(holder) => format!(
                "{}, held by {holder} with key {}",
                reservation.kind, reservation.key
            ),
            None => format!("{}, held by every registrant", reservation.kind),
        },
    }
}

/// The condition of lost information in one line.
const fn lost(until: LostUntil) -> &'static str {
    match until {
        LostUntil::Registered => {
            "until every recovered registration is made anew, preempted, cleared or gone"
        }
        LostUntil::Replaced => "until REPLACE LOST RESERVATION, or 'keys recover VOLUME --clear'",
    }
}

/// Registrations; where information was lost, with what each of them is since.
fn registrations(registrations: &[KeysRegistration], lost: Option<LostUntil>) -> String {
    if registrations.is_empty() {
        return "no registrations".to_owned();
    }
    let yes = |flag: bool| if flag { "yes" } else { "no" }.to_owned();
    let rows = registrations.iter().map(|registration| {
        let since = if registration.recovered {
            "recovered"
        } else {
            "new"
        };
        let mut row = vec![
            registration.key.clone(),
            registration.initiator.clone(),
            registration.isid.clone(),
            registration.target_port.to_string(),
            yes(registration.aptpl),
            yes(registration.holder),
        ];
        row.extend(lost.map(|_| since.to_owned()));
        row
    });
    let mut head = vec!["KEY", "INITIATOR", "ISID", "PORT", "APTPL", "HOLDER"];
    head.extend(lost.map(|_| "SINCE THE LOSS"));
    table(&head, &[3], rows)
}
