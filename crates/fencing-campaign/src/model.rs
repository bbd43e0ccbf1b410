//! Small clusters, exhaustively: every order of claims, answers, failures, crashes and late messages within a budget.
//!
//! The state is the real [`Coordinator`] with what is durable, who is denied at the volumes, what the quorum device remembers and what
//! is on its way. Messages on their way end in any order, or fail; the quorum device's answers get lost before or after it has
//! granted; the head crashes at any moment, with a commit of unknown fate durable or not.

use std::collections::BTreeSet;

use fencing::coordinator::{CommitOutcome, Reply};
use fencing::{
    Action, Claim, Coordinator, Domain, Input, Quorum, QuorumAnswer, QuorumPlace, QuorumRegister,
    Survey,
};
use stateright::{Model, Property};
use uuid::Uuid;

use crate::oracle::Oracle;
use crate::plan::{NAMES, names, number, plain_domain, set};

/// How much may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Budget {
    /// New claims of each member.
    pub claims: u8,
    /// Claims that are given once more.
    pub repeats: u8,
    /// Crashes of the head.
    pub crashes: u8,
    /// Failures of commits, surveys, revocations and messages.
    pub failures: u8,
    /// Times at which the clock moves to what the coordinator waits for.
    pub wakes: u8,
    /// Requests to fence or unfence a member.
    pub requests: u8,
}

/// A cluster of members with one vote each.
#[derive(Clone, Debug)]
pub struct Cluster {
    domain: Domain,
    budget: Budget,
    groups: Vec<u8>,
}

/// Where a cluster is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    coordinator: Coordinator,
    now_ms: u64,
    durable: Domain,
    maybe: Option<Domain>,
    /// Who is denied.
    gate: u8,
    register: QuorumRegister,
    pending: Vec<Action>,
    made: Vec<Claim>,
    claims: [u8; NAMES.len()],
    /// Claims of this life of the head that are not answered.
    open: BTreeSet<(Uuid, String)>,
    oracle: Oracle,
    left: Budget,
    broken: Option<String>,
}

/// What happens next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// A member claims for a group.
    Claim {
        /// Who.
        member: usize,
        /// For whom.
        group: u8,
    },
    /// A claim is given again.
    Repeat(usize),
    /// Something on its way ends well.
    Done(usize),
    /// It fails; nothing has happened.
    Fail(usize),
    /// It fails, and has happened.
    DoneUnheard(usize),
    /// The clock moves to what the coordinator waits for.
    Wake,
    /// The head crashes; a commit of unknown fate is durable, or not.
    Crash {
        /// It is.
        took: bool,
    },
    /// Somebody asks for a fence.
    Fence(usize),
    /// Somebody asks for its end.
    Unfence(usize),
}

impl Cluster {
    /// Members of one vote each, the groups that they claim for (as bits; each claimer's own is a group that it is in), with a quorum
    /// device of default votes or without.
    pub fn new(members: usize, device: bool, groups: &[u8], budget: Budget) -> Self {
        let mut domain = plain_domain(members);
        domain.quorum = device.then(|| Quorum {
            place: QuorumPlace::Server {
                address: "192.0.2.1:1".into(),
                name: None,
            },
            votes: None,
        });
        Self {
            domain,
            budget,
            groups: groups.to_vec(),
        }
    }
}

impl State {
    fn give(&mut self, input: Input) {
        self.coordinator.handle(input, self.now_ms);
        self.drain();
    }

    fn note(&mut self, result: Result<(), String>) {
        if let Err(problem) = result {
            self.broken.get_or_insert(problem);
        }
    }

    /// Takes what the coordinator says. What is watched only, and heard at once, is done at once.
    fn drain(&mut self) {
        while let Some(action) = self.coordinator.poll() {
            let told = self
                .oracle
                .told(&action, self.coordinator.domain(), !self.gate);
            self.note(told);
            match action {
                Action::Event(_) => {}
                Action::ProbeQuorum { ticket } => {
                    let answer = Ok(self.register.clone());
                    let input = Input::Probed { ticket, answer };
                    self.coordinator.handle(input, self.now_ms);
                }
                Action::TellQuorum { verdict } => self.register = self.register.tell(&verdict),
                Action::CloseQuorum { epoch } => {
                    self.register = self.register.close(self.durable.uuid, epoch);
                }
                Action::Reply { id, member, reply } => {
                    if let (Reply::Claim(_) | Reply::ClaimRefused(_), Some(member)) =
                        (reply, member)
                    {
                        self.open.remove(&(id, member));
                    }
                }
                other => self.pending.push(other),
            }
        }
    }

    fn claim(&mut self, claim: Claim) {
        self.open.insert((claim.id, claim.member.clone()));
        self.give(Input::Claim(claim));
    }

    fn make_durable(&mut self, domain: Domain) {
        let result = self.oracle.durable(&self.durable, &domain);
        self.note(result);
        self.durable = domain;
    }

    /// An action ends: `happened`, and the coordinator is told whether it went `well`.
    fn end(&mut self, action: Action, happened: bool, well: bool) {
        let gone = "gone".to_owned();
        let outcome = |well: bool| if well { Ok(()) } else { Err(gone) };
        let input = match action {
            Action::Survey { ticket } => {
                let fenced = set(self.durable.state.fenced.keys());
                let registered = names(!fenced & ((1 << self.durable.members.len()) - 1));
                let found = Survey {
                    registered,
                    holds: Default::default(),
                };
                let survey = outcome(well).map(|()| found);
                Input::Surveyed { ticket, survey }
            }
            Action::AskQuorum { ticket, ask } => {
                let (answer, next) = self.register.grant(&ask);
                if happened {
                    if answer == QuorumAnswer::Granted && next.epoch < self.register.epoch {
                        self.note(Err("the quorum device's epoch has shrunk".into()));
                    }
                    self.register = next;
                }
                let answer = outcome(well).map(|()| answer);
                Input::Asked { ticket, answer }
            }
            Action::Commit { ticket, domain } => {
                if self.maybe.as_ref().is_some_and(|maybe| *maybe != *domain) {
                    self.note(Err("another document while one may be durable".into()));
                }
                let outcome = match (happened, well) {
                    (true, true) => {
                        self.maybe = None;
                        self.make_durable(*domain);
                        CommitOutcome::Done
                    }
                    (true, false) => {
                        self.maybe = Some(*domain);
                        CommitOutcome::Unknown("gone".into())
                    }
                    (false, _) => CommitOutcome::Failed("gone".into()),
                };
                Input::Committed { ticket, outcome }
            }
            Action::Revoke { ticket, member } => {
                if happened {
                    self.gate |= 1 << number(&member);
                }
                let result = outcome(well).map(|()| Default::default());
                Input::Revoked { ticket, result }
            }
            Action::Restore { ticket, member } => {
                if happened {
                    self.gate &= !(1 << number(&member));
                }
                let result = outcome(well);
                Input::Restored { ticket, result }
            }
            Action::Execute { ticket, .. } => {
                let result = outcome(well).map(|()| "off".to_owned());
                Input::Executed { ticket, result }
            }
            _ => return,
        };
        self.give(input);
    }
}

impl Model for Cluster {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let mut state = State {
            coordinator: Coordinator::resume(self.domain.clone(), 0),
            now_ms: 0,
            durable: self.domain.clone(),
            maybe: None,
            gate: 0,
            register: QuorumRegister::default(),
            pending: Vec::new(),
            made: Vec::new(),
            claims: [0; NAMES.len()],
            open: BTreeSet::new(),
            oracle: Oracle::default(),
            left: self.budget,
            broken: None,
        };
        state.drain();
        vec![state]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        for (member, name) in NAMES.iter().enumerate().take(self.domain.members.len()) {
            if state.claims[member] < self.budget.claims {
                let groups = self
                    .groups
                    .iter()
                    .filter(|group| *group & (1 << member) != 0);
                steps.extend(groups.map(|group| Step::Claim {
                    member,
                    group: *group,
                }));
            }
            if state.left.requests > 0 {
                let fenced = state.durable.is_fenced(name);
                steps.push(if fenced {
                    Step::Unfence(member)
                } else {
                    Step::Fence(member)
                });
            }
        }
        if state.left.repeats > 0 {
            steps.extend((0..state.made.len()).map(Step::Repeat));
        }
        for (place, action) in state.pending.iter().enumerate() {
            steps.push(Step::Done(place));
            if state.left.failures > 0 {
                steps.push(Step::Fail(place));
                if !matches!(action, Action::Survey { .. } | Action::Execute { .. }) {
                    steps.push(Step::DoneUnheard(place));
                }
            }
        }
        if state.left.wakes > 0 && state.coordinator.next_wake_ms().is_some() {
            steps.push(Step::Wake);
        }
        if state.left.crashes > 0 {
            steps.push(Step::Crash { took: false });
            if state.maybe.is_some() || state.commit_on_its_way().is_some() {
                steps.push(Step::Crash { took: true });
            }
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        match step {
            Step::Claim { member, group } => {
                state.claims[member] += 1;
                let claim = Claim {
                    id: Uuid::from_u128(1 + member as u128 * 16 + u128::from(state.claims[member])),
                    member: NAMES[member].to_owned(),
                    group: names(group),
                    epoch: state.coordinator.domain().state.epoch,
                };
                state.made.push(claim.clone());
                state.claim(claim);
            }
            Step::Repeat(place) => {
                state.left.repeats -= 1;
                let claim = state.made.get(place)?.clone();
                state.claim(claim);
            }
            Step::Done(place) => {
                let action = state.pending.remove(place);
                state.end(action, true, true);
            }
            Step::Fail(place) => {
                state.left.failures -= 1;
                let action = state.pending.remove(place);
                state.end(action, false, false);
            }
            Step::DoneUnheard(place) => {
                state.left.failures -= 1;
                let action = state.pending.remove(place);
                state.end(action, true, false);
            }
            Step::Wake => {
                state.left.wakes -= 1;
                state.now_ms = state.now_ms.max(state.coordinator.next_wake_ms()?);
                state.give(Input::Time);
            }
            Step::Crash { took } => {
                state.left.crashes -= 1;
                let maybe = state.maybe.take().or_else(|| state.commit_on_its_way());
                if let Some(maybe) = maybe.filter(|_| took) {
                    state.make_durable(maybe);
                }
                state.pending.clear();
                state.open.clear();
                state.gate = set(state.durable.state.fenced.keys());
                state.coordinator = Coordinator::resume(state.durable.clone(), state.now_ms);
                state.drain();
            }
            Step::Fence(member) => {
                state.left.requests -= 1;
                let id = Uuid::from_u128(1000 + u128::from(state.left.requests));
                let member = NAMES[member].to_owned();
                let methods = None;
                state.give(Input::Fence {
                    id,
                    member,
                    methods,
                });
            }
            Step::Unfence(member) => {
                state.left.requests -= 1;
                let id = Uuid::from_u128(1000 + u128::from(state.left.requests));
                state.oracle.leave_asked |= 1 << member;
                let member = NAMES[member].to_owned();
                state.give(Input::Unfence { id, member });
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("every promise holds", |_, state: &State| {
                state.broken.is_none()
            }),
            Property::always("whoever claims is answered", |_, state: &State| {
                let quiet = state.pending.is_empty() && state.coordinator.is_idle();
                !quiet || state.open.is_empty()
            }),
            Property::always("it never waits for nothing", |_, state: &State| {
                let waits = !state.coordinator.is_idle() && state.pending.is_empty();
                // The quorum device is looked for every ten seconds, whatever else there is to wait for.
                let soon = state.coordinator.next_wake_ms();
                let limit_ms = if state.durable.quorum.is_some() {
                    9_000
                } else {
                    u64::MAX
                };
                !waits || soon.is_some_and(|at_ms| at_ms - state.now_ms.min(at_ms) < limit_ms)
            }),
            Property::always("what is told fenced cannot write", |_, state: &State| {
                state.oracle.promised & !state.gate == 0
            }),
            Property::sometimes("a race is won", |_, state: &State| {
                state.oracle.races_won > 0
            }),
            Property::sometimes("somebody returns", |_, state: &State| {
                let epoch = state.durable.state.epoch;
                epoch > 1 && state.durable.state.fenced.is_empty() && state.oracle.races_won > 0
            }),
        ]
    }
}

impl State {
    /// A document that is being written: a crash leaves it durable or not.
    fn commit_on_its_way(&self) -> Option<Domain> {
        self.pending.iter().find_map(|action| match action {
            Action::Commit { domain, .. } => Some((**domain).clone()),
            _ => None,
        })
    }
}
