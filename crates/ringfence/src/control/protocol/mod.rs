//! Requests and what comes back for them.

mod request;
#[cfg(test)]
mod tests;

use fencing::QuorumReply;
use serde::{Deserialize, Serialize};

use super::model::{
    Device, Domain, DomainMember, Fence, Grant, Grants, Job, JobEnd, Keys, KeysRecovery, Pool,
    Progress, RaceVerdict, Session, Status, Verified, Volume, VolumeMap,
};
use crate::events::Event;
use crate::failure::Failure;

pub use request::{Growth, JobAction, JobName, LayoutName, QuorumWish, Request, Shape};

/// The version of this protocol. It changes when a client of the one before would misunderstand an answer.
pub const PROTOCOL_VERSION: u32 = 1;

/// One request line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// [`PROTOCOL_VERSION`] of the client.
    pub version: u32,
    /// What is asked.
    pub request: Request,
}

impl Envelope {
    /// Wraps `request` in the version of this build.
    pub fn new(request: Request) -> Self {
        Self {
            version: PROTOCOL_VERSION,
            request,
        }
    }
}

/// One line of the daemon. There is one at a time on its way to the socket: its size does not matter.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Frame {
    /// One event of a stream; more frames follow.
    Event(Event),
    /// How far a long operation is; more frames follow.
    Progress(Progress),
    /// Done. The last frame of a request.
    Answer(Answer),
    /// Not done, and why. The last frame of a request.
    Error(Failure),
}

/// The result of a request. There is one at a time on its way to the socket: its size does not matter.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// Done; there is nothing more to tell.
    Done,
    /// To [`Request::Status`].
    Status(Status),
    /// One device.
    Device(Device),
    /// Devices by name.
    Devices(Vec<Device>),
    /// One volume.
    Volume(Volume),
    /// Volumes by LUN.
    Volumes(Vec<Volume>),
    /// Where a volume lies.
    Map(VolumeMap),
    /// The grant as it is now.
    Grant(Grant),
    /// All grants of a volume.
    Grants(Grants),
    /// A private region.
    Keys(Keys),
    /// Sessions by identity.
    Sessions(Vec<Session>),
    /// The pool.
    Pool(Pool),
    /// One job.
    Job(Job),
    /// Several jobs.
    Jobs(Vec<Job>),
    /// How jobs ended, in the order asked for.
    JobEnds(Vec<JobEnd>),
    /// What a comparison found.
    Verified(Verified),
    /// What recovering keys would do.
    KeysRecovery(KeysRecovery),
    /// One fence domain.
    Domain(Domain),
    /// Fence domains by name.
    Domains(Vec<Domain>),
    /// Members of a fence domain by name.
    Members(Vec<DomainMember>),
    /// What a quorum server says.
    Quorum(QuorumReply),
    /// How a race ended for who claimed.
    Race(RaceVerdict),
    /// A fence that is proven.
    Fence(Fence),
}
