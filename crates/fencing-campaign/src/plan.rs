//! What a history is like: drawn from its seed.

use std::collections::BTreeSet;

use fencing::{Domain, DomainState, Method, Prefer, Quorum, QuorumPlace, Secret};
use uuid::Uuid;

use crate::random::Random;

/// Names of members, by number.
pub const NAMES: [&str; 6] = ["A", "B", "C", "D", "E", "F"];

/// Volumes of a domain, besides the mailbox.
pub const VOLUMES: usize = 3;

/// A defect that is built in on purpose: the checks must find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Plant {
    /// The head says that access is gone before what was in flight has ended.
    NoDrain,
    /// The head says that access is gone when it is gone on all volumes but one.
    OneVolumeLeft,
    /// A commit is acknowledged and not durable.
    LyingCommit,
    /// The quorum device forgets what it has granted.
    ForgetfulQuorum,
    /// A head that starts does not know who is fenced.
    OpenAtStart,
}

/// How often things go wrong, in a thousand; 0 in many histories, so that each is also seen alone.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// Messages between members that are lost.
    pub loss: u64,
    /// Storage requests that are held up for seconds.
    pub slow: u64,
    /// Commits that fail, half of them with an unknown fate.
    pub commit: u64,
    /// Revocations and restorations that fail.
    pub access: u64,
    /// Surveys that fail.
    pub survey: u64,
    /// Attempts of methods that fail, or never answer.
    pub method: u64,
    /// Messages to and from the quorum device that are lost, late or repeated.
    pub quorum: u64,
}

/// A history.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Members.
    pub members: usize,
    /// The domain of each head, before anything happened.
    pub domains: Vec<Domain>,
    /// Two heads ask for the votes of one register.
    pub shared_register: bool,
    /// What goes wrong.
    pub faults: Faults,
    /// How long things go wrong, in milliseconds.
    pub chaos_ms: u64,
    /// Which troubles there are: a bit each.
    pub troubles: u64,
    /// The members' nodes are the real ones.
    pub nodes: bool,
    /// A defect.
    pub plant: Option<Plant>,
}

impl Plan {
    /// The plan of a seed.
    pub fn new(random: &mut Random, plant: Option<Plant>) -> Self {
        let members = match random.below(10) {
            0..=2 => 2,
            3..=6 => 3,
            7 => 4,
            8 => 5,
            _ => 6,
        };
        let heads = if random.permille(250) { 2 } else { 1 };
        let device = random.permille(750);
        let votes = match random.below(3) {
            0 => Some(1),
            1 => Some(random.within(1, 4) as u32),
            _ => None,
        };
        let equal = random.permille(600);
        let member_votes: Vec<u32> = (0..members)
            .map(|_| if equal { 1 } else { random.below(4) as u32 })
            .collect();
        let prefer = *random.pick(&[Prefer::Largest, Prefer::Weight, Prefer::Holder]);
        let window_ms = *random.pick(&[100, 500, 2_000, 2_000, 5_000]);
        let attempt_timeout_ms = random.within(1_000, 4_000) as u32;
        let attempts = random.within(1, 3) as u8;
        let methods: Vec<Vec<Method>> = (0..members).map(|_| methods(random)).collect();
        let domains = (0..heads)
            .map(|head| {
                let mut domain = plain_domain(members);
                domain.uuid = Uuid::from_u128(0xd0 + head);
                domain.name = format!("domain{head}");
                domain.volumes = (0..VOLUMES)
                    .map(|volume| Uuid::from_u128(volume as u128 + 1))
                    .collect();
                domain.quorum = device.then(|| Quorum {
                    place: QuorumPlace::Server {
                        address: "192.0.2.1:1".into(),
                        name: None,
                    },
                    votes,
                });
                domain.prefer = prefer;
                domain.window_ms = window_ms;
                domain.attempt_timeout_ms = attempt_timeout_ms;
                domain.attempts = attempts;
                for (number, member) in domain.members.values_mut().enumerate() {
                    member.votes = member_votes[number];
                    member.methods.clone_from(&methods[number]);
                }
                domain
            })
            .collect();
        let mut rate = |most: u64| {
            if random.permille(500) {
                0
            } else {
                random.within(1, most)
            }
        };
        let faults = Faults {
            loss: rate(200),
            slow: rate(200),
            commit: rate(400),
            access: rate(300),
            survey: rate(200),
            method: rate(600),
            quorum: rate(500),
        };
        Self {
            members,
            domains,
            shared_register: heads == 2 && random.permille(500),
            faults,
            chaos_ms: random.within(5_000, 60_000),
            troubles: random.number() | random.number(),
            nodes: false,
            plant,
        }
    }
}

fn methods(random: &mut Random) -> Vec<Method> {
    let agent = || Method::Stonith {
        agent: "x".into(),
        options: Default::default(),
    };
    match random.below(6) {
        0..=2 => vec![Method::Reservation],
        3 => vec![Method::Fabric, Method::Reservation],
        4 => vec![agent()],
        _ => vec![agent(), Method::Fabric],
    }
}

/// A domain of members with one vote each, fenced by `reservation`, without a quorum device.
pub fn plain_domain(members: usize) -> Domain {
    let mut domain = Domain {
        uuid: Uuid::from_u128(0xd0),
        name: "domain0".into(),
        volumes: [Uuid::from_u128(1)].into(),
        mailbox: Uuid::from_u128(0xff),
        members: Default::default(),
        quorum: None,
        prefer: Prefer::Largest,
        window_ms: 100,
        attempt_timeout_ms: 1_000,
        attempts: 1,
        secret: Secret::new([1; 32]),
        state: DomainState::default(),
    };
    for (member, name) in NAMES.iter().enumerate().take(members) {
        domain
            .add_member(
                name,
                &[format!("iqn.x:{member}")],
                1,
                &[Method::Reservation],
            )
            .unwrap_or_else(|error| panic!("the plan is wrong: {error}"));
    }
    domain
}

/// The names of a set of members.
pub fn names(set: u8) -> BTreeSet<String> {
    let all = NAMES.iter().enumerate();
    all.filter(|(number, _)| set & (1 << number) != 0)
        .map(|(_, name)| (*name).to_owned())
        .collect()
}

/// The number of a member.
pub fn number(name: &str) -> usize {
    NAMES
        .iter()
        .position(|known| *known == name)
        .unwrap_or_else(|| panic!("no member is called {name}"))
}

/// The set of named members.
pub fn set<'a>(names: impl IntoIterator<Item = &'a String>) -> u8 {
    names
        .into_iter()
        .fold(0, |set, name| set | 1 << number(name))
}
