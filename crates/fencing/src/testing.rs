//! Domains for tests.

use uuid::Uuid;

use crate::domain::{
    DEFAULT_ATTEMPT_TIMEOUT_MS, DEFAULT_ATTEMPTS, DEFAULT_WINDOW_MS, Domain, DomainState, Prefer,
    Secret,
};
use crate::method::Method;

/// A domain of these members with one vote each, fenced by `reservation`, without a quorum device.
pub fn domain(members: &[&str]) -> Domain {
    let mut domain = Domain {
        uuid: Uuid::from_u128(1),
        name: "d".into(),
        volumes: [Uuid::from_u128(2)].into(),
        mailbox: Uuid::from_u128(3),
        members: Default::default(),
        quorum: None,
        prefer: Prefer::Largest,
        window_ms: DEFAULT_WINDOW_MS,
        attempt_timeout_ms: DEFAULT_ATTEMPT_TIMEOUT_MS,
        attempts: DEFAULT_ATTEMPTS,
        secret: Secret::new([7; 32]),
        state: DomainState::default(),
    };
    for member in members {
        add_member(&mut domain, member, 1);
    }
    domain
}

/// One more member, fenced by `reservation`.
pub fn add_member(domain: &mut Domain, name: &str, votes: u32) {
    let initiator = format!("iqn.x:{}", name.to_lowercase());
    domain
        .add_member(name, &[initiator], votes, &[Method::Reservation])
        .unwrap();
}
