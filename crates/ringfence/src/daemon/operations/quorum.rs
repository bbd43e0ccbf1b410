//! This daemon as a quorum server: registers of other heads' domains, kept as documents of the pool.

use std::sync::Arc;

use ::volume::config::DocumentRecord;
use fencing::{QuorumRegister, QuorumReply, QuorumRequest};
use uuid::Uuid;

use super::{Operations, explain, lock};
use crate::failure::Failure;

/// The kind of these documents.
const KIND: &str = "quorum";

impl Operations {
    /// Carries a request out on the register `name`; what it changes is durable before the answer.
    pub(super) fn quorum(
        &self,
        name: &str,
        request: &QuorumRequest,
    ) -> Result<QuorumReply, Failure> {
        let _shared = self.shared()?;
        let _one = lock(&self.quorum);
        let pool = Arc::clone(&self.pool);
        let documents = self.run(move || async move { pool.documents(KIND).await })?;
        let kept = documents.into_iter().find(|document| document.name == name);
        let register = match &kept {
            None => QuorumRegister::default(),
            Some(document) => serde_json::from_slice(&document.body).map_err(|error| {
                Failure::failed(format!(
                    "the quorum register {name} is not understood: {error}"
                ))
            })?,
        };
        let (reply, next) = register.apply(request);
        if next == register {
            return Ok(reply);
        }
        let body = serde_json::to_vec(&next).map_err(|error| {
            Failure::failed(format!(
                "the quorum register {name} cannot be written: {error}"
            ))
        })?;
        let document = DocumentRecord {
            uuid: kept.map_or_else(Uuid::new_v4, |document| document.uuid),
            kind: KIND.to_owned(),
            name: name.to_owned(),
            extents: Vec::new(),
            body,
        };
        let pool = Arc::clone(&self.pool);
        self.run(move || async move { pool.put_document(document).await })?
            .map_err(|error| explain(&error))?;
        if let QuorumRequest::Ask(ask) = request {
            tracing::info!(register = name, epoch = ask.epoch, group = ?ask.group, "votes granted");
        }
        Ok(reply)
    }
}
