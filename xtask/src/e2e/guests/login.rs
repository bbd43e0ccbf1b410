//! Discovery and login with open-iscsi, with and without CHAP, and what REPORT LUNS shows to whom.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};

use super::lab::Lab;
use crate::targets::Target;
use crate::targets::ringfence::Ringfence;

/// SendTargets names the target at every portal; after login the disk is there with its size; volumes without a grant
/// are not.
pub fn discovery_and_login(lab: &mut Lab) -> Result<()> {
    let disk = lab.volume("login", 64)?;
    let target = lab.target.common();
    let (name, portals) = (target.name().to_owned(), target.portals().to_vec());
    for portal in &portals {
        let found =
            lab.guests[0].ok(&format!("iscsiadm -m discovery -t sendtargets -p {portal}"))?;
        for (index, other) in portals.iter().enumerate() {
            let line = format!("{other},{} {name}", index + 1);
            ensure!(
                found.contains(&line) || lab.target.ringfence().is_none(),
                "discovery at {portal} shows no '{line}':\n{found}"
            );
        }
    }
    for index in [0, 1] {
        lab.login(index, 1, &disk)?;
        let size = lab.guests[index].ok(&format!("blockdev --getsize64 {}", disk.paths[0]))?;
        ensure!(
            size.trim() == (64_u64 << 20).to_string(),
            "the disk has {size} bytes"
        );
    }
    if let Some(ringfence) = lab.target.ringfence() {
        hidden_without_grant(&lab.guests[0].initiator, ringfence)?;
        let luns = lab.guests[0].ok(&format!("sg_luns -d {}", disk.paths[0]))?;
        ensure!(
            luns.contains(&format!("{:02x}00", disk.lun)) || luns.contains("LUN="),
            "sg_luns: {luns}"
        );
        let hidden = ringfence.cli_json(&["volume", "show", "hidden"])?;
        let lun = hidden["lun"].as_u64().context("no LUN")?;
        let shown = lab.guests[0]
            .ok("iscsiadm -m session --rescan; udevadm settle; ls /dev/disk/by-path")?;
        ensure!(
            !shown.contains(&format!("-lun-{lun}\n")),
            "a volume without grant is shown:\n{shown}"
        );
        let others = lab.guests[1]
            .ok("iscsiadm -m session --rescan; udevadm settle; ls /dev/disk/by-path")?;
        ensure!(
            others.contains(&format!("-lun-{lun}\n")),
            "a granted volume is not shown:\n{others}"
        );
    }
    for guest in &mut lab.guests {
        guest.ok("iscsiadm -m node --logoutall=all")?;
    }
    digests(lab, &name, portals[0], &disk.paths[0])
}

/// CRC32C over headers and data: negotiated, and the data arrives.
fn digests(lab: &mut Lab, name: &str, portal: SocketAddr, path: &str) -> Result<()> {
    let record = format!("iscsiadm -m node -T {name} -p {portal}");
    let set = |value: &str| {
        ["HeaderDigest", "DataDigest"]
            .map(|digest| {
                format!("{record} -o update -n node.conn[0].iscsi.{digest} -v {value} || exit 1; ")
            })
            .concat()
    };
    let guest = &mut lab.guests[0];
    let seen = guest.ok(&format!(
        "{}{record} --login >/dev/null && udevadm settle && iscsiadm -m session -P 2 && \
         dd if=/dev/urandom of=/tmp/digests bs=1M count=4 2>/dev/null && \
         dd if=/tmp/digests of={path} bs=1M oflag=direct 2>/dev/null && \
         dd if={path} bs=1M count=4 iflag=direct 2>/dev/null | cmp - /tmp/digests && {record} --logout >/dev/null",
        set("CRC32C")
    ))?;
    for digest in ["HeaderDigest: CRC32C", "DataDigest: CRC32C"] {
        ensure!(seen.contains(digest), "no '{digest}' in\n{seen}");
    }
    guest.ok(&set("None")).map(drop)
}

/// A volume that everyone but `initiator` may use.
fn hidden_without_grant(initiator: &str, ringfence: &Ringfence) -> Result<()> {
    ringfence.add_device("dev-hidden", "128M")?;
    ringfence.cli_ok(&[
        "volume",
        "create",
        "hidden",
        "--size",
        "16M",
        "--on",
        "dev-hidden",
    ])?;
    ringfence.cli_ok(&["grant", "hidden", "*", "rw"])?;
    ringfence
        .cli_ok(&["grant", "hidden", initiator, "none"])
        .map(drop)
}

/// A second daemon that asks for CHAP: the wrong secret is refused, the right one let in, and with mutual CHAP the
/// guest refuses a target that does not know the second secret.
pub fn chap(lab: &mut Lab) -> Result<()> {
    let Some(binary) = lab.binary.clone() else {
        return Ok(()); // tgt's CHAP is not what is tested.
    };
    let initiator = lab.guests[0].initiator.clone();
    let file = lab.folder.join("chap");
    std::fs::write(
        &file,
        format!(
            "# name secret [mutual-name mutual-secret]\n{initiator} guest-secret-12 target target-secret-34\n"
        ),
    )?;
    set_private(&file)?;
    let portal: SocketAddr = SocketAddr::new(lab.network.portals()[0].ip(), 3261);
    let mut target = Ringfence::new(&binary, &lab.folder.join("chap-target"), vec![portal])?
        .in_namespace(lab.network.name())
        .with_chap_file(&file);
    target.start()?;
    let lun = target.create_volume("chap", 16, 512)?;
    let name = target.name().to_owned();
    let guest = &mut lab.guests[0];
    let record = format!("iscsiadm -m node -T {name} -p {portal}");
    let login = |user: &str, secret: &str, mutual: &str| {
        let mut script = format!("{record} -o new >/dev/null 2>&1; ");
        let mut fields = vec![
            ("authmethod", "CHAP"),
            ("username", user),
            ("password", secret),
        ];
        if !mutual.is_empty() {
            fields.extend([("username_in", "target"), ("password_in", mutual)]);
        }
        for (field, value) in fields {
            script +=
                &format!("{record} -o update -n node.session.auth.{field} -v {value} || exit 99; ");
        }
        script
            + &format!(
                "{record} --login; code=$?; {record} --logout >/dev/null 2>&1; {record} -o delete; exit $code"
            )
    };
    let refused = guest.fails(&format!("{record} -o new; {record} --login"))?;
    ensure!(
        refused.contains("authorization failure") || refused.contains("24"),
        "without CHAP: {refused}"
    );
    let wrong = guest.fails(&login(&initiator, "another-secret", ""))?;
    ensure!(
        wrong.contains("authorization failure") || wrong.contains("24"),
        "with a wrong secret: {wrong}"
    );
    guest.ok(&login(&initiator, "guest-secret-12", ""))?;
    guest.ok(&login(&initiator, "guest-secret-12", "target-secret-34"))?;
    // Only SHA-256 is offered; the logins before preferred what open-iscsi puts first.
    let sha256 = login(&initiator, "guest-secret-12", "target-secret-34").replace(
        &format!("{record} --login"),
        &format!(
            "{record} -o update -n node.session.auth.chap_algs -v SHA256 || exit 98; {record} --login"
        ),
    );
    guest.ok(&sha256)?;
    guest.fails(&login(&initiator, "guest-secret-12", "not-the-targets"))?;
    ensure!(lun < 16384, "a LUN in the peripheral or flat space");
    target.terminate().map(drop)
}

fn set_private(file: &std::path::Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(std::fs::set_permissions(
        file,
        std::fs::Permissions::from_mode(0o600),
    )?)
}
