//! What an idle session and a volume cost in memory, on targets just started.

use anyhow::Result;

use super::load::Subject;
use super::process_cost::resident_kib;
use super::session::{Pattern, Session};

/// KiB of resident memory that `sessions` sessions add, each. Each has read and written once, so that what a session
/// keeps after its work counts too.
///
/// # Errors
/// When the target refuses or is gone.
pub fn per_session_kib(subject: &Subject, pid: u32, sessions: u32) -> Result<f64> {
    let pattern = Pattern {
        write: false,
        length_bytes: 4096,
        random: true,
        depth: 1,
        span_bytes: 1 << 20,
    };
    let login = |index| {
        let mut session =
            Session::login(subject.portal, &subject.name, subject.lun, index, pattern)?;
        let mut write_10 = [0; 10];
        (write_10[0], write_10[8]) = (0x2a, 8);
        session.command(&write_10, &[0; 4096])?;
        session.start()?;
        session.turn()?;
        session.finish()?;
        anyhow::Ok(session)
    };
    // What the first session makes the target set up once is not the others' cost.
    let first = login(0)?;
    let before = resident_kib(pid)?;
    let open = (1..=sessions).map(login).collect::<Result<Vec<_>>>()?;
    let after = resident_kib(pid)?;
    drop((first, open));
    Ok(after.saturating_sub(before) as f64 / f64::from(sessions))
}

/// KiB of resident memory that each of `volumes` volumes adds, which `create` makes one by one.
///
/// # Errors
/// When the target refuses or is gone.
pub fn per_volume_kib(
    pid: u32,
    volumes: u32,
    mut create: impl FnMut(u32) -> Result<()>,
) -> Result<f64> {
    create(0)?;
    let before = resident_kib(pid)?;
    for index in 1..=volumes {
        create(index)?;
    }
    let after = resident_kib(pid)?;
    Ok(after.saturating_sub(before) as f64 / f64::from(volumes))
}
