//! Volumes in words.

use super::super::job;
use super::super::output::{fields, names, table};
use crate::control::model::{Plex, Verified, Volume, VolumeMap};
use crate::size::HumanSize;

pub(super) fn list(volumes: &[Volume]) -> String {
    if volumes.is_empty() {
        return "no volumes; make one with: ringfence volume create NAME --size SIZE".to_owned();
    }
    let rows = volumes.iter().map(|volume| {
        vec![
            volume.lun.to_string(),
            volume.name.clone(),
            state(volume),
            HumanSize(volume.size_bytes).to_string(),
            volume.block_size_bytes.to_string(),
            layout(volume),
            names(&volume.devices),
            names(&volume.keys_on),
            volume.sessions.to_string(),
        ]
    });
    table(
        &[
            "LUN", "NAME", "STATE", "SIZE", "BLOCK", "LAYOUT", "DEVICES", "KEYS ON", "SESSIONS",
        ],
        &[0, 3, 4, 8],
        rows,
    )
}

pub(super) fn describe(volume: &Volume) -> String {
    let persist = match volume.persist.as_str() {
        "always" => "always".to_owned(),
        other => format!("{other} (over a reboot as registered)"),
    };
    let mut rows = vec![
        ("Name", volume.name.clone()),
        ("LUN", volume.lun.to_string()),
        ("State", state(volume)),
    ];
    rows.extend(volume.reason.iter().map(|reason| ("Why", reason.clone())));
    rows.extend([
        ("Size", HumanSize(volume.size_bytes).to_string()),
        ("Block size", volume.block_size_bytes.to_string()),
        ("Layout", layout(volume)),
        ("Devices", names(&volume.devices)),
        ("Keys on", names(&volume.keys_on)),
        ("Persist", persist),
        ("Sessions", volume.sessions.to_string()),
        ("UUID", volume.uuid.clone()),
        ("NAA", volume.naa.clone()),
    ]);
    if let Some(domain) = &volume.domain {
        let what = if volume.mailbox { "mailbox of " } else { "" };
        let fenced = match volume.fenced.as_slice() {
            [] => String::new(),
            fenced => format!("; fenced: {}", fenced.join(", ")),
        };
        rows.push(("Fence domain", format!("{what}{domain}{fenced}")));
    }
    rows.extend(volume.job.iter().map(|job| ("Job", job::in_words(job))));
    format!("{}\n\n{}", fields(&rows), plexes(&volume.plexes))
}

/// `online`, or what is not as it should be.
fn state(volume: &Volume) -> String {
    let progress = |job: &crate::control::model::Job| format!("{} {}%", job.job, job.percent);
    match (volume.health.as_str(), &volume.job) {
        ("good", None) => volume.state.clone(),
        ("good" | "resync", Some(job)) => progress(job),
        (health, Some(job)) => format!("{health}, {}", progress(job)),
        (health, None) => health.to_owned(),
    }
}

/// `linear`, `striped 4x64 KiB`, `2 mirrors, linear`.
fn layout(volume: &Volume) -> String {
    let shape = shape(&volume.layout, volume.columns, volume.stripe_unit_bytes);
    match volume.mirrors {
        0 | 1 => shape,
        mirrors => format!("{mirrors} mirrors, {shape}"),
    }
}

fn shape(layout: &str, columns: usize, stripe_unit_bytes: Option<u64>) -> String {
    match stripe_unit_bytes {
        None => layout.to_owned(),
        Some(bytes) => format!("{layout} {columns}x{}", HumanSize(bytes)),
    }
}

fn plexes(plexes: &[Plex]) -> String {
    let rows = plexes.iter().map(|plex| {
        let why = plex.reason.as_deref().unwrap_or_default();
        vec![
            plex.plex.to_string(),
            plex.state.clone(),
            format!("{}%", plex.synced_percent),
            shape(&plex.layout, plex.columns, plex.stripe_unit_bytes),
            names(&plex.devices),
            why.to_owned(),
        ]
    });
    table(
        &["PLEX", "STATE", "SYNCED", "LAYOUT", "DEVICES", "WHY"],
        &[0, 2],
        rows,
    )
}

/// What `volume verify` found.
pub(super) fn verified(found: &Verified) -> String {
    let mut lines = vec![match found.mismatched_bytes {
        0 if found.checked_bytes == 0 => {
            "there is one copy of the data: nothing to compare".to_owned()
        }
        0 => format!("{} compared, no difference", HumanSize(found.checked_bytes)),
        differ => format!(
            "{} compared: {} differ, {} of it repaired",
            HumanSize(found.checked_bytes),
            HumanSize(differ),
            HumanSize(found.repaired_bytes)
        ),
    }];
    if found.skipped_bytes > 0 {
        lines.push(format!(
            "{} left out: a copy is still being brought up to date there",
            HumanSize(found.skipped_bytes)
        ));
    }
    lines.extend(found.mismatches.iter().map(|mismatch| {
        let plexes: Vec<String> = mismatch.plexes.iter().map(usize::to_string).collect();
        format!(
            "  {} bytes at {} in plex {}: {}{}",
            mismatch.length_bytes,
            mismatch.offset_bytes,
            plexes.join(", "),
            mismatch.problem,
            if mismatch.repaired { ", repaired" } else { "" }
        )
    }));
    if !found.keys_stale.is_empty() {
        lines.push(format!(
            "keys not current on {}, {} repaired",
            found.keys_stale.join(", "),
            found.keys_repaired
        ));
    }
    lines.join("\n")
}

pub(super) fn extents(map: &VolumeMap) -> String {
    let rows = map.extents.iter().map(|entry| {
        vec![
            entry.region.clone(),
            entry.copy.to_string(),
            entry.column.map_or("-".to_owned(), |c| c.to_string()),
            entry.offset_bytes.to_string(),
            entry.length_bytes.to_string(),
            entry.device.clone(),
            entry.device_offset_bytes.to_string(),
        ]
    });
    table(
        &[
            "REGION",
            "COPY",
            "COLUMN",
            "OFFSET",
            "LENGTH",
            "DEVICE",
            "DEVICE OFFSET",
        ],
        &[1, 2, 3, 4, 6],
        rows,
    )
}
