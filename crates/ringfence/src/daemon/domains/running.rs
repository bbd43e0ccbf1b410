//! One domain: what others see of it, and how they speak to the task that runs it.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc;

use ::volume::config::Extent;
use event_listener::{Event as Bell, EventListener};
use fencing::Domain;
use fencing::coordinator::{Event, Input, Reply};
use parking_lot::Mutex;
use uuid::Uuid;

use super::tell::Askers;
use crate::events::Operator;

/// What the task of a domain is given.
#[derive(Debug)]
pub(super) enum Item {
    /// For the coordinator.
    Input(Input),
    /// The node of a fenced member has come back and asks for its access.
    Return {
        /// The member.
        member: String,
        /// Its incarnation now.
        incarnation: Uuid,
    },
    /// The task is to end; it says whether it has, or does not because something is under way and it was asked kindly.
    Stop {
        /// Also when something is under way, which goes on when the domain is taken up again.
        force: bool,
        /// Whom it is said to.
        answer: mpsc::Sender<bool>,
    },
}

/// What the daemon knows of a domain beside its document.
#[derive(Debug, Default)]
pub(super) struct Observed {
    /// Why the quorum device cannot be used.
    pub(super) quorum_lost: Option<String>,
    /// Members whose heartbeat on storage has stopped while others go on.
    pub(super) suspects: BTreeSet<String>,
    /// Members that `fabric` has cut off, or is cutting off.
    pub(super) cut: BTreeSet<String>,
    /// Answers to claims that came through the mailbox, by member.
    pub(super) answers: BTreeMap<String, (Uuid, Reply)>,
}

/// What an answer is known by: the identity of the request, and for a claim its member, since members choose the identities of
/// their claims themselves and read each other's.
type Asked = (Uuid, Option<String>);

/// A domain and its inbox. The task that empties the inbox is in [`super::driver`].
#[derive(Debug)]
pub(in crate::daemon) struct Running {
    pub(super) uuid: Uuid,
    /// What the document holds space with: the region of the quorum device.
    pub(super) extents: Vec<Extent>,
    /// As it is durable.
    domain: Mutex<Arc<Domain>>,
    pub(super) observed: Mutex<Observed>,
    pub(super) askers: Mutex<Askers>,
    inbox: Mutex<VecDeque<Item>>,
    bell: Bell,
    waiting: Mutex<HashMap<Asked, Vec<mpsc::Sender<Reply>>>>,
    /// The last claim of each member that came through the mailbox.
    mailed: Mutex<HashMap<String, Uuid>>,
    ended: AtomicBool,
    /// One at a time speaks to the quorum device.
    pub(super) quorum: async_lock::Mutex<()>,
}

impl Running {
    pub(in crate::daemon) fn new(domain: Domain, extents: Vec<Extent>) -> Arc<Self> {
        let cut = super::policy::cut_off(&domain);
        let observed = Observed {
            cut: cut.into_iter().map(str::to_owned).collect(),
            ..Observed::default()
        };
        Arc::new(Self {
            uuid: domain.uuid,
            extents,
            domain: Mutex::new(Arc::new(domain)),
            observed: Mutex::new(observed),
            askers: Mutex::default(),
            inbox: Mutex::default(),
            bell: Bell::new(),
            waiting: Mutex::default(),
            mailed: Mutex::default(),
            ended: AtomicBool::new(false),
            quorum: async_lock::Mutex::new(()),
        })
    }

    /// The domain as it is durable.
    pub(in crate::daemon) fn domain(&self) -> Arc<Domain> {
        self.domain.lock().clone()
    }

    /// What its document holds space with.
    pub(in crate::daemon) fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// The claim `id` is made for `operator`.
    pub(in crate::daemon) fn claimed_by(&self, id: Uuid, operator: &Operator) {
        self.askers.lock().claims.insert(id, operator.clone());
    }

    /// What is now done to `member` is done for `operator`.
    pub(in crate::daemon) fn asked_by(&self, member: &str, operator: &Operator) {
        let mut askers = self.askers.lock();
        askers.members.insert(member.to_owned(), operator.clone());
    }

    pub(super) fn adopt(&self, domain: Domain) {
        *self.domain.lock() = Arc::new(domain);
    }

    /// Why the quorum device cannot be used; `None` when it can, as far as is known.
    pub(in crate::daemon) fn quorum_lost(&self) -> Option<String> {
        self.observed.lock().quorum_lost.clone()
    }

    /// Whether the heartbeat of a member on storage has stopped while others go on.
    pub(in crate::daemon) fn is_suspect(&self, member: &str) -> bool {
        self.observed.lock().suspects.contains(member)
    }

    /// The initiators that are cut off.
    pub(super) fn cut(&self) -> BTreeSet<String> {
        let domain = self.domain();
        let cut = &self.observed.lock().cut;
        let members = cut.iter().filter_map(|name| domain.members.get(name));
        members
            .flat_map(|member| member.initiators.iter().cloned())
            .collect()
    }

    pub(super) fn give(&self, item: Item) {
        self.inbox.lock().push_back(item);
        self.bell.notify(usize::MAX);
    }

    pub(super) fn input(&self, input: Input) {
        self.give(Item::Input(input));
    }

    pub(super) fn take(&self) -> Option<Item> {
        self.inbox.lock().pop_front()
    }

    pub(super) fn listen(&self) -> EventListener {
        self.bell.listen()
    }

    /// Gives `input`, whose answer has the identity `id`; a claim also says whose it is. The receiver ends without an answer
    /// when the domain is let go of.
    pub(in crate::daemon) fn ask(
        &self,
        id: Uuid,
        member: Option<&str>,
        input: Input,
    ) -> mpsc::Receiver<Reply> {
        let (answer, receiver) = mpsc::channel();
        let asked = (id, member.map(str::to_owned));
        self.waiting.lock().entry(asked).or_default().push(answer);
        self.input(input);
        receiver
    }

    /// Nobody waits for this answer any more.
    pub(in crate::daemon) fn forget(&self, id: Uuid) {
        self.waiting.lock().retain(|(other, _), _| *other != id);
        self.askers.lock().claims.remove(&id);
    }

    /// The claim `id` came through the mailbox of `member`.
    pub(super) fn mail(&self, id: Uuid, member: &str) {
        self.mailed.lock().insert(member.to_owned(), id);
    }

    /// Hands an answer to those who wait for it.
    pub(super) fn reply(&self, id: Uuid, member: Option<&str>, reply: Reply) {
        if let Some(member) = member
            && self.mailed.lock().get(member) == Some(&id)
        {
            let mut observed = self.observed.lock();
            observed
                .answers
                .insert(member.to_owned(), (id, reply.clone()));
        }
        let asked = (id, member.map(str::to_owned));
        let waiting = self.waiting.lock().remove(&asked).unwrap_or_default();
        for answer in waiting {
            // Who does not wait any more does not need it.
            let _ = answer.send(reply.clone());
        }
    }

    /// Takes note of what the coordinator tells.
    pub(super) fn note(&self, event: &Event) {
        let mut observed = self.observed.lock();
        match event {
            Event::QuorumDeviceLost { reason } => observed.quorum_lost = Some(reason.clone()),
            Event::QuorumDeviceBack => observed.quorum_lost = None,
            _ => {}
        }
    }

    /// Whether the task has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(SeqCst)
    }

    /// Ends all waiting without an answer: the task has ended.
    pub(super) fn end(&self) {
        self.ended.store(true, SeqCst);
        self.waiting.lock().clear();
        self.inbox.lock().clear();
    }
}
