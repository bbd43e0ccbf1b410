//! The state machine of one domain: claims, requests, fences and their proof.

mod message;

pub use message::{
    Action, Change, CommitOutcome, Event, FenceDone, Input, Proof, Reply, RequestError, Revoked,
};
