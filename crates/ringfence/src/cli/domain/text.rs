//! Fence domains in words.

use crate::cli::output::{fields, names, table};
use crate::control::model::{Domain, DomainMember, DomainQuorum, DomainVerdict};

pub(super) fn list(domains: &[Domain]) -> String {
    if domains.is_empty() {
        return "no fence domains; make one with: ringfence domain create NAME --volumes VOLUME,..."
            .to_owned();
    }
    let rows = domains.iter().map(|domain| {
        let volumes: Vec<String> = domain.volumes.iter().map(|v| v.volume.clone()).collect();
        let fenced: Vec<String> = fenced(domain).map(str::to_owned).collect();
        vec![
            domain.name.clone(),
            domain.state.clone(),
            domain.epoch.to_string(),
            domain.members.len().to_string(),
            names(&fenced),
            domain.votes_total.to_string(),
            short(&volumes),
        ]
    });
    table(
        &[
            "NAME", "STATE", "EPOCH", "MEMBERS", "FENCED", "VOTES", "VOLUMES",
        ],
        &[2, 3, 5],
        rows,
    )
}

/// A list of names that may be long.
fn short(list: &[String]) -> String {
    const SHOWN: usize = 4;
    match list.len().checked_sub(SHOWN) {
        None | Some(0 | 1) => names(list),
        Some(more) => format!("{} and {more} more", names(&list[..SHOWN])),
    }
}

fn fenced(domain: &Domain) -> impl Iterator<Item = &str> {
    let members = domain.members.iter();
    members
        .filter(|member| member.fence.is_some())
        .map(|member| member.member.as_str())
}

pub(super) fn describe(domain: &Domain) -> String {
    let volumes: Vec<String> = domain.volumes.iter().map(|v| v.volume.clone()).collect();
    let not_served: Vec<String> = domain
        .volumes
        .iter()
        .filter(|volume| volume.state != "online")
        .map(|volume| volume.volume.clone())
        .collect();
    let mut rows = vec![
        ("Name", domain.name.clone()),
        ("State", domain.state.clone()),
        ("Epoch", domain.epoch.to_string()),
        ("Volumes", names(&volumes)),
    ];
    if !not_served.is_empty() {
        rows.push(("Not served", names(&not_served)));
    }
    rows.extend([
        (
            "Mailbox",
            format!(
                "{}, LUN {}, {}",
                domain.mailbox.volume, domain.mailbox.lun, domain.mailbox.naa
            ),
        ),
        ("Quorum", quorum(domain.quorum.as_ref())),
        ("Prefers", domain.prefer.clone()),
        ("Window", format!("{} ms", domain.window_ms)),
        (
            "Votes",
            format!(
                "{}, {} needed to win",
                domain.votes_total,
                domain.votes_total / 2 + 1
            ),
        ),
        ("Last race", verdict(domain.verdict.as_ref())),
        ("UUID", domain.uuid.clone()),
    ]);
    format!("{}\n\n{}", fields(&rows), members(&domain.members))
}

fn quorum(quorum: Option<&DomainQuorum>) -> String {
    let Some(quorum) = quorum else {
        return "none".to_owned();
    };
    let place = match (&quorum.device, &quorum.server) {
        (Some(device), _) => format!("device {device}"),
        (None, Some(server)) => format!("server {server}"),
        (None, None) => "-".to_owned(),
    };
    let lost = if quorum.state == "lost" { ", LOST" } else { "" };
    format!("{place}, votes {}{lost}", quorum.votes)
}

fn verdict(verdict: Option<&DomainVerdict>) -> String {
    let Some(verdict) = verdict else {
        return "none".to_owned();
    };
    if verdict.winners.is_empty() {
        return format!(
            "epoch {}, nobody won: no group had more than half of {} votes",
            verdict.epoch, verdict.votes_total
        );
    }
    format!(
        "epoch {}, won by {} with {} of {} votes; fenced: {}",
        verdict.epoch,
        names(&verdict.winners),
        verdict.votes,
        verdict.votes_total,
        names(&verdict.fenced)
    )
}

pub(super) fn members(members: &[DomainMember]) -> String {
    if members.is_empty() {
        return "no members; add one with: ringfence domain member add DOMAIN MEMBER --initiator NAME"
            .to_owned();
    }
    let rows = members.iter().map(|member| {
        let fence = member.fence.as_ref().map_or("-".to_owned(), |fence| {
            let proven = fence.proven.as_deref().unwrap_or("NOT PROVEN YET");
            format!("{proven} ({}, epoch {})", fence.cause, fence.epoch)
        });
        vec![
            member.member.clone(),
            member.state.clone(),
            if member.registered { "yes" } else { "no" }.to_owned(),
            member.votes.to_string(),
            member.sessions.to_string(),
            member.methods.join(","),
            names(&member.initiators),
            fence,
        ]
    });
    table(
        &[
            "MEMBER",
            "STATE",
            "REGISTERED",
            "VOTES",
            "SESSIONS",
            "METHODS",
            "INITIATORS",
            "FENCED BY",
        ],
        &[3, 4],
        rows,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::model::{DomainVolume, MemberFence};

    fn member(name: &str, fence: Option<MemberFence>) -> DomainMember {
        DomainMember {
            domain: "web".into(),
            member: name.into(),
            state: if fence.is_some() { "fenced" } else { "member" }.into(),
            initiators: vec![format!("iqn.2026-11.com.example:{name}")],
            votes: 1,
            methods: vec!["fabric".into(), "reservation".into()],
            slot: 0,
            registered: fence.is_none(),
            sessions: 1,
            fence,
        }
    }

    fn volume(name: &str, lun: u16, state: &str) -> DomainVolume {
        DomainVolume {
            volume: name.into(),
            lun,
            naa: "0x6".into(),
            state: state.into(),
        }
    }

    #[test]
    fn a_domain_in_words() {
        let domain = Domain {
            name: "web".into(),
            uuid: "7d2c".into(),
            state: "fenced".into(),
            epoch: 3,
            volumes: vec![volume("data", 0, "online"), volume("logs", 1, "not-served")],
            mailbox: volume("web-mailbox", 2, "online"),
            members: vec![
                member("vm1", None),
                member(
                    "vm2",
                    Some(MemberFence {
                        epoch: 3,
                        cause: "race".into(),
                        proven: Some("fabric".into()),
                    }),
                ),
            ],
            quorum: Some(DomainQuorum {
                device: Some("disk1".into()),
                server: None,
                votes: 1,
                votes_fixed: false,
                state: "lost".into(),
            }),
            prefer: "largest".into(),
            window_ms: 2000,
            votes_total: 2,
            verdict: Some(DomainVerdict {
                epoch: 3,
                winners: vec!["vm1".into()],
                fenced: vec!["vm2".into()],
                votes: 2,
                votes_total: 3,
                quorum_voted: true,
            }),
        };
        insta::assert_snapshot!(describe(&domain), @r"
        Name        web
        State       fenced
        Epoch       3
        Volumes     data,logs
        Not served  logs
        Mailbox     web-mailbox, LUN 2, 0x6
        Quorum      device disk1, votes 1, LOST
        Prefers     largest
        Window      2000 ms
        Votes       2, 2 needed to win
        Last race   epoch 3, won by vm1 with 2 of 3 votes; fenced: vm2
        UUID        7d2c

        MEMBER  STATE   REGISTERED  VOTES  SESSIONS  METHODS             INITIATORS                   FENCED BY
        vm1     member  yes             1         1  fabric,reservation  iqn.2026-11.com.example:vm1  -
        vm2     fenced  no              1         1  fabric,reservation  iqn.2026-11.com.example:vm2  fabric (race, epoch 3)
        ");
        insta::assert_snapshot!(list(&[domain]), @r"
        NAME  STATE   EPOCH  MEMBERS  FENCED  VOTES  VOLUMES
        web   fenced      3        2  vm2         2  data,logs
        ");
    }
}
