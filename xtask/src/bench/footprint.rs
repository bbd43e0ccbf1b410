//! Memory for each idle session and each volume.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::load::{Place, identity};
use super::process_usage::anonymous_kib;
use crate::e2e::wire::Session;
use crate::targets::Target;

/// Opens idle sessions, then makes volumes, and sees how the targets grow.
///
/// # Errors
/// When a login or a volume is refused.
pub fn report(
    report: &mut String,
    targets: &mut [(&str, Box<dyn Target>)],
    places: &[Place],
    quick: bool,
) -> Result<()> {
    let (session_count, volume_count) = if quick { (50, 5) } else { (200, 20) };
    writeln!(
        report,
        "| memory, KiB | for an idle session ({session_count} of them) | for a volume ({volume_count} of them) |"
    )?;
    writeln!(report, "| --- | ---: | ---: |")?;
    for ((name, target), place) in targets.iter_mut().zip(places) {
        let pid = target.pid().context("the target runs")?;
        let before = anonymous_kib(pid)?;
        let sessions = (0..session_count)
            .map(|number| {
                let mut session =
                    Session::login(place.portal, &identity(1000 + number), &place.target)?;
                session.clear_attentions(place.lun)?;
                Ok(session)
            })
            .collect::<Result<Vec<_>>>()?;
        std::thread::sleep(Duration::from_millis(500));
        let with_sessions = anonymous_kib(pid)?;
        drop(sessions);
        std::thread::sleep(Duration::from_millis(500));
        let before_volumes = anonymous_kib(pid)?;
        for number in 0..volume_count {
            target.create_volume(&format!("small{number}"), 4, 512)?;
        }
        let with_volumes = anonymous_kib(pid)?;
        let each = |after: u64, before: u64, count: usize| {
            after.saturating_sub(before) as f64 / count as f64
        };
        writeln!(
            report,
            "| {name} | {:.1} | {:.1} |",
            each(with_sessions, before, session_count),
            each(with_volumes, before_volumes, volume_count)
        )?;
    }
    Ok(())
}
