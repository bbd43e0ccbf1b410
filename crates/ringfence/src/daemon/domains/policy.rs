//! What the fence domains want of a logical unit and of the portals: pure.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use ::volume::Access;
use fencing::{Domain, FencedMember, Member, Method};
use target::UnitPolicy;
use uuid::Uuid;

use crate::names::DOMAIN_PREFIX;

/// The grantee that stands for the members of a domain in the grants of a volume.
pub(in crate::daemon) fn grantee_of(domain: &str) -> String {
    format!("{DOMAIN_PREFIX}{domain}")
}

/// The policy of the volume with this identity and these grants.
pub(super) fn unit_policy<'a>(
    volume: Uuid,
    grants: &BTreeMap<String, Access>,
    domains: impl IntoIterator<Item = &'a Domain>,
) -> UnitPolicy {
    let mut policy = UnitPolicy::default();
    for domain in domains {
        if let Some(access) = grants.get(&grantee_of(&domain.name)) {
            grant(&mut policy.grants, domain, *access);
        }
        if domain.mailbox == volume {
            grant(&mut policy.grants, domain, Access::Rw);
            policy.windows = Some(windows(domain));
        }
        if domain.volumes.contains(&volume) {
            fence(&mut policy, domain);
        }
    }
    policy
}

fn grant(grants: &mut BTreeMap<String, Access>, domain: &Domain, access: Access) {
    for member in domain.members.values() {
        for initiator in &member.initiators {
            grants.insert(initiator.clone(), access);
        }
    }
}

/// Where each initiator may write in the mailbox: the slot of its member.
fn windows(domain: &Domain) -> BTreeMap<String, Range<u64>> {
    let members = domain.members.values();
    members
        .flat_map(|member| {
            // A member without a slot, of which there is none, would write nothing.
            let window = fencing::mailbox::slot_window_bytes(member.slot).unwrap_or(0..0);
            let initiators = member.initiators.iter();
            initiators.map(move |initiator| (initiator.clone(), window.clone()))
        })
        .collect()
}

fn fence(policy: &mut UnitPolicy, domain: &Domain) {
    let mut fenced: Vec<(&FencedMember, &Member)> = domain
        .state
        .fenced
        .iter()
        .filter_map(|(name, fenced)| Some((fenced, domain.members.get(name)?)))
        .collect();
    fenced.sort_by_key(|(fenced, _)| Reverse(fenced.epoch));
    for (fenced, member) in fenced {
        policy.fenced.extend(member.initiators.iter().cloned());
        for heir in &fenced.heirs {
            if !policy.heirs.contains(heir) {
                policy.heirs.push(heir.clone());
            }
        }
        if fenced.proven == Some(Method::ReserveRelease) {
            policy.scsi2_owners = owners(domain);
        }
    }
}

/// Initiators that own the volumes by SCSI-2 RESERVE while another member is fenced so: those of members that are not fenced.
pub(super) fn owners(domain: &Domain) -> Vec<String> {
    let members = domain.unfenced();
    members
        .flat_map(|(_, member)| member.initiators.iter().cloned())
        .collect()
}

/// Members whose logins are to be refused from the start: `fabric` has been proven, or was the first to be tried when the
/// daemon ended.
pub(super) fn cut_off(domain: &Domain) -> BTreeSet<&str> {
    let cut = |fenced: &FencedMember| match &fenced.proven {
        Some(method) => *method == Method::Fabric,
        None => fenced.methods.first() == Some(&Method::Fabric),
    };
    let fenced = domain.state.fenced.iter();
    fenced
        .filter(|(_, fenced)| cut(fenced))
        .map(|(name, _)| name.as_str())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use fencing::{DomainState, FenceCause, Prefer, Secret};

    fn fenced(epoch: u64, methods: &[Method], proven: Option<Method>) -> FencedMember {
        FencedMember {
            epoch,
            cause: FenceCause::Race,
            heirs: vec![format!("iqn.x:heir{epoch}"), "iqn.x:heir".into()],
            methods: methods.to_vec(),
            proven,
            incarnation: None,
        }
    }

    fn domain() -> Domain {
        let mut domain = Domain {
            uuid: Uuid::from_u128(1),
            name: "web".into(),
            volumes: BTreeSet::from([Uuid::from_u128(10)]),
            mailbox: Uuid::from_u128(11),
            members: BTreeMap::new(),
            quorum: None,
            prefer: Prefer::Largest,
            window_ms: 2000,
            attempt_timeout_ms: 60_000,
            attempts: 2,
            secret: Secret::new([0; 32]),
            state: DomainState::default(),
        };
        for name in ["a", "b", "c"] {
            let initiators = [format!("iqn.x:{name}"), format!("iqn.x:{name}2")];
            domain
                .add_member(name, &initiators, 1, &[Method::Reservation])
                .unwrap();
        }
        domain.state.epoch = 5;
        domain
    }

    fn policy_of(volume: u128, grants: &[(&str, Access)], domain: &Domain) -> UnitPolicy {
        let grants = grants
            .iter()
            .map(|(name, access)| ((*name).to_owned(), *access));
        unit_policy(Uuid::from_u128(volume), &grants.collect(), [domain])
    }

    #[test]
    fn a_fence_is_for_the_volumes_of_the_domain_and_the_newest_heirs_come_first() {
        let mut domain = domain();
        let once = [Method::Reservation];
        let state = &mut domain.state.fenced;
        state.insert("a".into(), fenced(3, &once, None));
        state.insert("b".into(), fenced(4, &once, Some(Method::Reservation)));
        let policy = policy_of(10, &[], &domain);
        let names = ["iqn.x:a", "iqn.x:a2", "iqn.x:b", "iqn.x:b2"].map(String::from);
        assert_eq!(policy.fenced, BTreeSet::from(names));
        assert_eq!(policy.heirs, ["iqn.x:heir4", "iqn.x:heir", "iqn.x:heir3"]);
        assert!(policy.scsi2_owners.is_empty());
        for other in [11, 12] {
            let policy = policy_of(other, &[], &domain);
            assert!(policy.fenced.is_empty(), "{other}");
        }
    }

    #[test]
    fn grants_to_a_domain_are_those_of_its_members() {
        let domain = domain();
        let grants = [("domain:web", Access::Ro), ("domain:other", Access::Rw)];
        let policy = policy_of(12, &grants, &domain);
        assert_eq!(policy.grants.len(), 6);
        assert!(policy.grants.values().all(|access| *access == Access::Ro));
        assert!(policy.windows.is_none());
    }

    #[test]
    fn the_mailbox_is_for_the_members_and_each_writes_its_own_slot() {
        let domain = domain();
        let policy = policy_of(11, &[], &domain);
        assert_eq!(policy.grants.get("iqn.x:b2"), Some(&Access::Rw));
        let windows = policy.windows.unwrap();
        assert_eq!(windows["iqn.x:a"], windows["iqn.x:a2"]);
        assert!(windows["iqn.x:a"].end <= windows["iqn.x:b"].start);
    }

    #[test]
    fn the_others_own_the_volumes_while_reserve_release_stands() {
        let mut domain = domain();
        let methods = [Method::ReserveRelease];
        let proven = fenced(3, &methods, Some(Method::ReserveRelease));
        domain.state.fenced.insert("a".into(), proven);
        let policy = policy_of(10, &[], &domain);
        assert_eq!(
            policy.scsi2_owners,
            ["iqn.x:b", "iqn.x:b2", "iqn.x:c", "iqn.x:c2"]
        );
    }

    #[test]
    fn logins_are_refused_where_fabric_stands_or_was_under_way() {
        let mut domain = domain();
        let both = [Method::Fabric, Method::Reservation];
        let last = [Method::Reservation, Method::Fabric];
        let state = &mut domain.state.fenced;
        state.insert("a".into(), fenced(1, &both, None));
        state.insert("b".into(), fenced(2, &last, Some(Method::Fabric)));
        state.insert("c".into(), fenced(3, &last, None));
        assert_eq!(cut_off(&domain), BTreeSet::from(["a", "b"]));
        let done = fenced(1, &both, Some(Method::Reservation));
        domain.state.fenced.insert("a".into(), done);
        assert_eq!(cut_off(&domain), BTreeSet::from(["b"]));
    }
}
