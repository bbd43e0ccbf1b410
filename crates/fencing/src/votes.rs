//! Who votes, for whom, and which group has more than half.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// What is on the volumes when a race is decided.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Survey {
    /// Members with a key on at least one volume of the domain.
    pub registered: BTreeSet<String>,
    /// On how many volumes a member holds the reservation; members that hold none may be left out.
    pub holds: BTreeMap<String, u32>,
}
