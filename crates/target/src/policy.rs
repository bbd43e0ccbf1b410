//! What fence domains want of a volume, kept by volume whether it is served or not.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use arc_swap::ArcSwap;
use uuid::Uuid;
use volume::Access;

/// What the domains want of a volume. The default is a volume that no domain has to do with. Names of initiators are iSCSI
/// names in lower case and stand for all their sessions and ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitPolicy {
    /// Initiators that have no access, whatever is reserved.
    pub fenced: BTreeSet<String>,
    /// Who inherits what they have reserved, in order of preference.
    pub heirs: Vec<String>,
    /// What initiators may do because of a grant to a domain. Their own grant in the volume's record goes before it, that
    /// of `*` after it.
    pub grants: BTreeMap<String, Access>,
    /// For a mailbox: the bytes that each initiator may write. Nothing else of the volume can be written by anyone, nobody
    /// can reserve it, and a reset ends only the sender's own tasks.
    pub windows: Option<BTreeMap<String, Range<u64>>>,
    /// `reserve-release`: the volume is to be reserved by RESERVE for the first session of these initiators, again after
    /// every reset, as long as they are named here.
    pub scsi2_owners: Vec<String>,
}

impl UnitPolicy {
    /// Whether it asks for nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What `initiator` may write: `None` everything (that it may write otherwise), else this range, which may be empty.
    pub(crate) fn window(&self, initiator: &str) -> Option<Range<u64>> {
        let windows = self.windows.as_ref()?;
        Some(windows.get(initiator).cloned().unwrap_or(0..0))
    }
}

/// The policy of one volume now.
pub(crate) type PolicyCell = ArcSwap<UnitPolicy>;

/// The policies by volume. Behind a mutex that is held for moments only.
#[derive(Default)]
pub(crate) struct Policies(HashMap<Uuid, Arc<PolicyCell>>);

impl Policies {
    /// The place of the policy of a volume, whether there is one or not.
    pub(crate) fn cell(&mut self, volume: Uuid) -> Arc<PolicyCell> {
        self.0.entry(volume).or_default().clone()
    }

    /// Changes the policy of a volume.
    pub(crate) fn update(&mut self, volume: Uuid, change: impl FnOnce(&mut UnitPolicy)) {
        let cell = self.cell(volume);
        let mut policy = UnitPolicy::clone(&cell.load());
        change(&mut policy);
        if policy != **cell.load() {
            cell.store(Arc::new(policy));
        }
    }

    /// Drops the place of a volume that is not served, if its policy asks for nothing.
    pub(crate) fn forget(&mut self, volume: Uuid) {
        if self
            .0
            .get(&volume)
            .is_some_and(|cell| cell.load().is_empty())
        {
            self.0.remove(&volume);
        }
    }
}
