//! A member's disks as files: a FUSE file system whose files are logical units of an iSCSI session, so that
//! `ringfence node` has its disks without a kernel's initiator. `IOC_PR_REGISTER` becomes PERSISTENT RESERVE OUT.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use fuser::{
    BackgroundSession, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, IoctlFlags, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry,
    ReplyIoctl, ReplyOpen, ReplyWrite, Request, WriteFlags,
};
use initiator::{Error, Session};
use scsi::Lun;
use scsi::sense::SenseKey;

use super::lab::BLOCK_BYTES;
use crate::process::{command, succeeds};

/// `IOC_PR_REGISTER` of `linux/pr.h`.
const IOC_PR_REGISTER: u32 = 0x4018_70c8;
/// `PR_STS_RESERVATION_CONFLICT`.
const RESERVATION_CONFLICT: i32 = 0x18;
const NOT_CACHED: Duration = Duration::ZERO;
const FIRST_FILE: u64 = 2;

/// A mounted session. It is unmounted when this value is dropped.
pub(super) struct Bridge {
    folder: PathBuf,
    writes_fail: Arc<AtomicBool>,
    session: Arc<Mutex<Session>>,
    mount: Option<BackgroundSession>,
}

struct Disk {
    name: String,
    lun: Lun,
    length_bytes: u64,
}

struct Tree {
    disks: Vec<Disk>,
    session: Arc<Mutex<Session>>,
    writes_fail: Arc<AtomicBool>,
}

impl Bridge {
    /// Mounts `luns`, by the names of their files, at `folder`.
    pub(super) fn mount(
        folder: &Path,
        mut session: Session,
        luns: &[(String, Lun)],
    ) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let mut disks = Vec::new();
        for (name, lun) in luns {
            session.clear_unit_attentions(*lun)?;
            let capacity = session.read_capacity(*lun)?;
            disks.push(Disk {
                name: name.clone(),
                lun: *lun,
                length_bytes: (capacity.last_lba + 1) * u64::from(BLOCK_BYTES),
            });
        }
        let session = Arc::new(Mutex::new(session));
        let writes_fail = Arc::new(AtomicBool::new(false));
        let tree = Tree {
            disks,
            session: Arc::clone(&session),
            writes_fail: Arc::clone(&writes_fail),
        };
        let mount = fuser::spawn_mount(tree, folder, &fuser::Config::default())
            .context("cannot mount a FUSE file system (this takes root and /dev/fuse)")?;
        Ok(Self {
            folder: folder.to_owned(),
            writes_fail,
            session,
            mount: Some(mount),
        })
    }

    /// The session, for commands that no file knows.
    pub(super) fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on writes fail, or no longer do.
    pub(super) fn fail_writes(&self, fail: bool) {
        self.writes_fail.store(fail, Ordering::SeqCst);
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let words = [OsStr::new("-l"), self.folder.as_os_str()];
        succeeds(&mut command("umount", words));
        self.mount.take();
    }
}

impl Tree {
    fn disk(&self, ino: INodeNo) -> Option<&Disk> {
        let index = u64::from(ino).checked_sub(FIRST_FILE)?;
        self.disks.get(usize::try_from(index).ok()?)
    }

    fn attributes(&self, ino: INodeNo) -> Result<FileAttr, Errno> {
        let disk = self.disk(ino);
        if disk.is_none() && ino != INodeNo::ROOT {
            return Err(Errno::ENOENT);
        }
        let size = disk.map_or(0, |disk| disk.length_bytes);
        Ok(FileAttr {
            ino,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: match disk {
                Some(_) => FileType::RegularFile,
                None => FileType::Directory,
            },
            perm: 0o700,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            flags: 0,
            blksize: 4096,
        })
    }

    /// Runs a command on a disk, again after a unit attention, as a kernel does.
    fn run<T>(
        &self,
        ino: INodeNo,
        mut run: impl FnMut(&mut Session, Lun) -> Result<T, Error>,
    ) -> Result<T, Errno> {
        let disk = self.disk(ino).ok_or(Errno::ENOENT)?;
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let mut result = run(&mut session, disk.lun);
        for _ in 0..8 {
            match &result {
                Err(error) if error.sense().is_some_and(is_attention) => {
                    result = run(&mut session, disk.lun);
                }
                _ => break,
            }
        }
        result.map_err(|error| match error.is_reservation_conflict() {
            true => Errno::EACCES,
            false => Errno::EIO,
        })
    }
}

fn is_attention(sense: scsi::Sense) -> bool {
    sense.key == SenseKey::UnitAttention
}

impl Filesystem for Tree {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let index = self
            .disks
            .iter()
            .position(|disk| parent == INodeNo::ROOT && OsStr::new(&disk.name) == name);
        let found = index
            .ok_or(Errno::ENOENT)
            .and_then(|index| self.attributes(INodeNo(index as u64 + FIRST_FILE)));
        match found {
            Ok(attributes) => reply.entry(&NOT_CACHED, &attributes, Generation(0)),
            Err(error) => reply.error(error),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(ino) {
            Ok(attributes) => reply.attr(&NOT_CACHED, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let (lba, blocks) = (offset / u64::from(BLOCK_BYTES), size / BLOCK_BYTES);
        match self.run(ino, |session, lun| {
            session.read(lun, lba, blocks, BLOCK_BYTES)
        }) {
            Ok(data) => reply.data(&data),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        if self.writes_fail.load(Ordering::SeqCst) {
            return reply.error(Errno::EIO);
        }
        let lba = offset / u64::from(BLOCK_BYTES);
        let bytes = Bytes::copy_from_slice(data);
        let write =
            |session: &mut Session, lun| session.write(lun, lba, bytes.clone(), BLOCK_BYTES, false);
        match self.run(ino, write) {
            // FUSE never writes 4 GiB at once.
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX)),
            Err(error) => reply.error(error),
        }
    }

    fn ioctl(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        cmd: u32,
        in_data: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        let new_key = in_data.get(8..16).and_then(|key| key.try_into().ok());
        let (IOC_PR_REGISTER, Some(new_key)) = (cmd, new_key.map(u64::from_ne_bytes)) else {
            return reply.error(Errno::ENOTTY);
        };
        match self.run(ino, |session, lun| {
            session.register_and_ignore(lun, new_key, true)
        }) {
            Ok(()) => reply.ioctl(0, &[]),
            Err(error) if error == Errno::EACCES => reply.ioctl(RESERVATION_CONFLICT, &[]),
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }
}
