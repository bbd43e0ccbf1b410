//! The Debian packages that the tests use: checked, and installed when run as root.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process::{command, finish, run_within, succeeds};

const LIST: &str = include_str!("../debian-packages.txt");
const APT_LIMIT: Duration = Duration::from_secs(600);

/// Packages that must be there, all with the same version when there are several.
type Group = Vec<&'static str>;

/// Makes sure that every package of `debian-packages.txt` is there: as root by installing what is missing.
/// Returns what it did, in words.
///
/// # Errors
/// Not root and something is missing (the message says what), or apt finds no way to install it.
pub fn ensure_installed() -> Result<String> {
    let missing = unsatisfied()?;
    if missing.is_empty() {
        return Ok("all there".into());
    }
    let words: Vec<&str> = missing.iter().flatten().copied().collect();
    if !rustix::process::geteuid().is_root() {
        bail!(
            "these Debian packages are missing or do not fit each other: {}\nInstall them as root: apt-get install --no-install-recommends {}",
            words.join(" "),
            words.join(" ")
        );
    }
    let update = finish(&mut command("apt-get", ["-q", "update"]), APT_LIMIT)?;
    for group in missing {
        install(&group).with_context(|| {
            format!(
                "cannot install {} (apt-get update exited with {})",
                group.join(" "),
                update.code
            )
        })?;
    }
    let left = unsatisfied()?;
    if !left.is_empty() {
        bail!("still missing after installing: {left:?}");
    }
    Ok(format!("installed {}", words.join(" ")))
}

fn groups() -> Vec<Group> {
    LIST.lines()
        .filter(|line| !line.starts_with('#') && !line.trim().is_empty())
        .map(|line| line.split_whitespace().collect())
        .collect()
}

fn unsatisfied() -> Result<Vec<Group>> {
    let groups = groups();
    let names = groups.iter().flatten().copied();
    let query = ["-W", "-f", "${Package} ${Version} ${db:Status-Abbrev}\n"];
    let listing = finish(
        &mut command("dpkg-query", query.into_iter().chain(names)),
        APT_LIMIT,
    )
    .context("this is not a Debian system; the real-client tests take their clients from Debian packages")?;
    let installed = parse_installed(&listing.stdout);
    Ok(groups
        .into_iter()
        .filter(|group| !satisfied(group, &installed))
        .collect())
}

fn parse_installed(listing: &str) -> BTreeMap<&str, &str> {
    listing
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (name, version, status) = (words.next()?, words.next()?, words.next()?);
            (status == "ii").then_some((name, version))
        })
        .collect()
}

fn satisfied(group: &[&str], installed: &BTreeMap<&str, &str>) -> bool {
    let versions: Option<Vec<&&str>> = group.iter().map(|name| installed.get(name)).collect();
    versions.is_some_and(|versions| versions.windows(2).all(|pair| pair[0] == pair[1]))
}

/// Plain names first; where apt refuses or the versions then differ, the newest version that all of the group have.
fn install(group: &[&str]) -> Result<()> {
    let plain: Vec<String> = group.iter().map(ToString::to_string).collect();
    if simulate(&plain) {
        apt_install(&plain)?;
        if !unsatisfied()?.iter().any(|left| left == group) {
            return Ok(());
        }
    }
    for version in common_versions(group)? {
        let pinned: Vec<String> = group
            .iter()
            .map(|name| format!("{name}={version}"))
            .collect();
        if simulate(&pinned) {
            return apt_install(&pinned);
        }
    }
    bail!("apt can install neither the plain names nor any version that all of them have")
}

fn common_versions(group: &[&str]) -> Result<Vec<String>> {
    let mut common: Option<Vec<String>> = None;
    for name in group {
        let listing = finish(&mut command("apt-cache", ["madison", name]), APT_LIMIT)?.stdout;
        let versions = parse_madison(&listing);
        common = Some(match common {
            None => versions,
            Some(known) => known.into_iter().filter(|v| versions.contains(v)).collect(),
        });
    }
    Ok(common.unwrap_or_default())
}

/// The versions in `apt-cache madison`'s listing, newest first as it prints them.
fn parse_madison(listing: &str) -> Vec<String> {
    listing
        .lines()
        .filter_map(|line| line.split('|').nth(1))
        .map(|version| version.trim().to_owned())
        .collect()
}

fn apt_arguments(packages: &[String]) -> impl Iterator<Item = &str> {
    [
        "install",
        "-y",
        "-q",
        "--no-install-recommends",
        "--allow-downgrades",
    ]
    .into_iter()
    .chain(packages.iter().map(String::as_str))
}

fn simulate(packages: &[String]) -> bool {
    succeeds(&mut command(
        "apt-get",
        ["-s"].into_iter().chain(apt_arguments(packages)),
    ))
}

fn apt_install(packages: &[String]) -> Result<()> {
    let mut apt = command("apt-get", apt_arguments(packages));
    apt.env("DEBIAN_FRONTEND", "noninteractive");
    run_within(&mut apt, APT_LIMIT).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_needs_one_version() {
        let installed = parse_installed("a 1.0 ii \nb 1.0 ii \nc 2.0 ii \nd 1.0 rc \n");
        assert!(satisfied(&["a", "b"], &installed));
        assert!(!satisfied(&["a", "c"], &installed), "versions differ");
        assert!(
            !satisfied(&["d"], &installed),
            "removed, configuration left"
        );
        assert!(!satisfied(&["e"], &installed), "never there");
    }

    #[test]
    fn madison_versions_are_the_second_column() {
        let listing = " x | 1:2+b3 | http://m bookworm/main amd64 Packages\n x | 1:1 | http://m s/main amd64 Packages\n";
        assert_eq!(parse_madison(listing), ["1:2+b3", "1:1"]);
    }

    #[test]
    fn the_list_holds_names_only() {
        let all: Vec<&str> = groups().into_iter().flatten().collect();
        assert!(all.contains(&"debootstrap") && all.contains(&"qemu-block-extra"));
        assert!(
            all.iter()
                .all(|name| !name.contains('#') && !name.contains('='))
        );
    }
}
