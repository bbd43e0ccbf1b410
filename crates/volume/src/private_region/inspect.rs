//! Looking at replicas that may not be served, and starting again from one of them.

use std::collections::BTreeMap;

use bytes::Bytes;
use reservation::machine::apply;
use reservation::{Event, LostUntil, LuReservations, State};
use uuid::Uuid;

use super::commit_record::CommitRecord;
use super::table::Table;
use super::{PrivateRegion, PrivateRegionError, identity, inconsistent};
use crate::block_device::BlockDevice;
use crate::page_store::header::Content;
use crate::page_store::{self, Beginning, HeaderRead, PageChange, PageStore, Replica, Verdict};

/// What one replica says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaReport {
    /// Identity of the replica.
    pub uuid: Uuid,
    /// Its device.
    pub device: Uuid,
    /// The device's name.
    pub device_name: String,
    /// Why it says nothing that can be used; `None` when it has a version.
    pub problem: Option<String>,
    /// That is because its device fails or does not answer.
    pub unreadable: bool,
    /// Sequence of its newest valid header.
    pub sequence: Option<u64>,
}

/// One version of a private region, on one replica or more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The replicas that have it.
    pub replicas: Vec<Uuid>,
    /// Names of their devices.
    pub device_names: Vec<String>,
    /// Number of the opening that wrote it.
    pub epoch: u64,
    /// Number of the commit.
    pub sequence: u64,
    /// The replicas whose majority had to have it.
    pub members: Vec<Uuid>,
    /// Identifies it: to be sure later that it is the one that was shown.
    pub token: u64,
    /// What it holds, or why that cannot be read.
    pub state: Result<State, String>,
}

/// What the replicas of a private region say. Nothing is written by looking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// Why it cannot be served; `None` when it can.
    pub problem: Option<String>,
    /// Each replica that was asked.
    pub replicas: Vec<ReplicaReport>,
    /// Each version, the newest first. A fork has two with the same number, or of two writers.
    pub versions: Vec<Version>,
    /// Position in `versions` of the one that an opening would take, if any.
    pub current: Option<usize>,
}

/// All replicas, read once.
struct Look {
    headers: page_store::Inspection,
    inspection: Inspection,
    /// Of each version.
    contents: Vec<Content>,
}

fn token(content: &Content) -> u64 {
    let header = page_store::Header {
        content: content.clone(),
        claim: 0,
        replica: Uuid::nil(),
    };
    let crc = crc32c::crc32c(&header.encode(identity(Uuid::nil())));
    content.sequence << 32 | u64::from(crc)
}

async fn look<D: BlockDevice>(
    volume: Uuid,
    replicas: &[Replica<D>],
) -> Result<Look, PrivateRegionError> {
    let headers = page_store::inspect(identity(volume), replicas).await?;
    let mut contents: Vec<Content> = Vec::new();
    let mut versions: Vec<Version> = Vec::new();
    let mut reports = Vec::new();
    for (replica, read) in replicas.iter().zip(&headers.reads) {
        let name = replica.device.name().to_owned();
        let (problem, sequence) = match read {
            HeaderRead::Valid(header) => (None, Some(header.content.sequence)),
            HeaderRead::Bad(error) => (Some(error.to_string()), None),
            HeaderRead::Unreadable(error) => (Some(error.clone()), None),
        };
        reports.push(ReplicaReport {
            uuid: replica.uuid,
            device: replica.device.uuid(),
            device_name: name.clone(),
            problem,
            unreadable: matches!(read, HeaderRead::Unreadable(_)),
            sequence,
        });
        let HeaderRead::Valid(header) = read else {
            continue;
        };
        let content = &header.content;
        match contents.iter().position(|known| known == content) {
            Some(index) => {
                versions[index].replicas.push(replica.uuid);
                versions[index].device_names.push(name);
            }
            None => {
                versions.push(Version {
                    replicas: vec![replica.uuid],
                    device_names: vec![name],
                    epoch: content.epoch,
                    sequence: content.sequence,
                    members: content.members.clone(),
                    token: token(content),
                    state: state_of(volume, replicas, content)
                        .await
                        .map_err(|error| error.to_string()),
                });
                contents.push(content.clone());
            }
        }
    }
    let mut order: Vec<usize> = (0..versions.len()).collect();
    order.sort_by_key(|index| {
        let version = &versions[*index];
        std::cmp::Reverse((version.epoch, version.sequence))
    });
    let versions: Vec<Version> = order.iter().map(|index| versions[*index].clone()).collect();
    let contents: Vec<Content> = order.iter().map(|index| contents[*index].clone()).collect();
    let current = headers
        .content()
        .and_then(|content| contents.iter().position(|known| known == content));
    let problem = match (&headers.verdict, current) {
        (Verdict::Current { .. }, Some(index)) => versions[index].state.clone().err(),
        _ => page_store::refusal(replicas, &headers).map(|error| error.to_string()),
    };
    Ok(Look {
        headers,
        inspection: Inspection {
            problem,
            replicas: reports,
            versions,
            current,
        },
        contents,
    })
}

/// Reads and validates the state that `content` describes.
async fn state_of<D: BlockDevice>(
    volume: Uuid,
    replicas: &[Replica<D>],
    content: &Content,
) -> Result<State, PrivateRegionError> {
    let used: Vec<u32> = content.used_pages().collect();
    let pages = page_store::read_version(replicas, content).await?;
    let table = Table::decode(volume, &content.record, &used, &pages)?;
    Ok(table.state().clone())
}

impl<D: BlockDevice> PrivateRegion<D> {
    /// Reads what each replica says, whether it may be served or not, and writes nothing. Replicas whose device does not
    /// answer within a few seconds say nothing.
    ///
    /// # Errors
    /// [`crate::page_store::StoreError::AreaTooSmall`]; what the replicas say is never an error.
    pub async fn inspect(
        volume: Uuid,
        replicas: &[Replica<D>],
    ) -> Result<Inspection, PrivateRegionError> {
        Ok(look(volume, replicas).await?.inspection)
    }

    /// A person's choice, where `replicas` have no majority or contradict one another: makes the version `token` that
    /// replica `from` has the content of a new private region on `targets`, with the information marked as lost (SPC-4
    /// 5.13.5.3) `until` what ends that; what the machine makes of [`Event::InformationLost`]. The targets have identities and areas that no replica had before; the new region is later than
    /// everything that `replicas` say. `replicas` are not written: until the configuration names the targets instead,
    /// nothing has happened.
    ///
    /// # Errors
    /// [`PrivateRegionError::NotThatVersion`]; what is wrong with that version; any target that fails.
    pub async fn recover_from(
        volume: Uuid,
        replicas: &[Replica<D>],
        from: Uuid,
        token: u64,
        until: LostUntil,
        targets: Vec<Replica<D>>,
    ) -> Result<(), PrivateRegionError> {
        let look = look(volume, replicas).await?;
        let chosen = look
            .inspection
            .versions
            .iter()
            .zip(&look.contents)
            .find(|(version, _)| version.token == token && version.replicas.contains(&from));
        let Some((_, content)) = chosen else {
            return Err(PrivateRegionError::NotThatVersion);
        };
        // Valid as a whole, or it is not taken.
        let used: Vec<u32> = content.used_pages().collect();
        let pages = page_store::read_version(replicas, content).await?;
        let table = Table::decode(volume, &content.record, &used, &pages)?;
        let survived = LuReservations::from(table.state().clone());
        let lost = apply(&survived, &Event::InformationLost { until }).state;
        let (table, dirty) = table.with(&lost.persistent)?;
        let mut pages: BTreeMap<u32, Bytes> = used.into_iter().zip(pages).collect();
        for (page, change) in table.pages(volume, &dirty) {
            match change {
                PageChange::Write(bytes) => pages.insert(page, bytes),
                PageChange::Free => pages.remove(&page),
            };
        }
        // The boot in which the copy was written: whether power was lost since is seen at the first opening.
        let copy = CommitRecord::decode(&content.record)
            .map_err(|problem| inconsistent(problem.into()))?;
        let record = table.record(copy.boot_id, copy.persist_always);
        let highest = look
            .headers
            .reads
            .iter()
            .filter_map(|read| match read {
                HeaderRead::Valid(header) => Some(header.claim.max(header.content.epoch)),
                _ => None,
            })
            .max()
            .unwrap_or(0);
        let beginning = Beginning {
            epoch: highest.saturating_add(1),
            record: record.encode(),
            pages: pages.into_iter().collect(),
        };
        PageStore::create(identity(volume), targets, beginning).await?;
        Ok(())
    }
}
