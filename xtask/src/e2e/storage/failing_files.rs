//! Files that fail when told to: a FUSE file system of a few files, each kept in a real file beside it, whose reads and
//! writes can be made to fail, to hang or to take long while a daemon uses them.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use fuser::{
    BackgroundSession, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyLseek,
    ReplyOpen, ReplyWrite, Request, WriteFlags,
};
use rustix::fs::{FallocateFlags, SeekFrom};

use crate::process::{command, succeeds};

/// What is wrong with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Reads fail with EIO.
    Reads,
    /// Everything that changes the file, and flushing, fails with this error.
    Writes(Errno),
    /// Everything fails with EIO, opening too: the device is gone.
    Gone,
    /// Reads, writes and flushes do not end before [`FailingFiles::release`].
    Hangs,
    /// Reads, writes and flushes take so long each.
    Slow(Duration),
}

/// How operations that hang end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// They are done after all, long after whoever asked may have given up.
    Late,
    /// They fail with EIO.
    Failed,
}

/// What an operation is, as far as faults care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Read,
    Change,
}

/// The rest of an operation: told the file, or the error it ends with.
type Work = Box<dyn FnOnce(Result<&File, Errno>) + Send>;

struct Backed {
    name: String,
    file: Arc<File>,
    fault: Fault,
    held: Vec<Work>,
}

type Shared = Arc<Mutex<Vec<Backed>>>;

/// The mounted file system. It is unmounted when this value is dropped.
pub struct FailingFiles {
    mount_point: PathBuf,
    backing: PathBuf,
    files: Shared,
    session: Option<BackgroundSession>,
}

impl FailingFiles {
    /// Mounts it at `folder/failing`; the real files lie in `folder/backing`.
    ///
    /// # Errors
    /// When FUSE cannot be used: it takes root and `/dev/fuse`.
    pub fn mount(folder: &Path) -> Result<Self> {
        let (mount_point, backing) = (folder.join("failing"), folder.join("backing"));
        std::fs::create_dir_all(&mount_point)?;
        std::fs::create_dir_all(&backing)?;
        let files = Shared::default();
        let session = fuser::spawn_mount(
            Tree(Arc::clone(&files)),
            &mount_point,
            &fuser::Config::default(),
        )
        .context("cannot mount a FUSE file system (this takes root and /dev/fuse)")?;
        Ok(Self {
            mount_point,
            backing,
            files,
            session: Some(session),
        })
    }

    /// Adds a file of `size_mib` MiB, all holes; returns its path in the file system.
    ///
    /// # Errors
    /// When the real file cannot be made.
    pub fn create(&self, name: &str, size_mib: u64) -> Result<PathBuf> {
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(self.backing.join(name))?;
        file.set_len(size_mib << 20)?;
        lock(&self.files).push(Backed {
            name: name.into(),
            file: Arc::new(file),
            fault: Fault::None,
            held: Vec::new(),
        });
        Ok(self.mount_point.join(name))
    }

    /// Gives the file this fault, from the next operation on. What hangs already goes on hanging.
    pub fn set(&self, name: &str, fault: Fault) {
        for file in lock(&self.files).iter_mut().filter(|f| f.name == name) {
            file.fault = fault;
        }
    }

    /// Ends what hangs, in the order in which it came; returns how many operations that were. The fault stays.
    pub fn release(&self, name: &str, how: Release) -> usize {
        let mut ended = 0;
        for file in lock(&self.files).iter_mut().filter(|f| f.name == name) {
            for work in file.held.drain(..) {
                ended += 1;
                match how {
                    Release::Late => work(Ok(&file.file)),
                    Release::Failed => work(Err(Errno::EIO)),
                }
            }
        }
        ended
    }

    /// How many operations hang.
    pub fn hanging(&self, name: &str) -> usize {
        lock(&self.files)
            .iter()
            .filter(|file| file.name == name)
            .map(|file| file.held.len())
            .sum()
    }
}

impl Drop for FailingFiles {
    fn drop(&mut self) {
        // A process that waits for one of these cannot end, and what cannot end keeps the mount.
        for file in lock(&self.files).iter_mut() {
            file.fault = Fault::Gone;
            for work in file.held.drain(..) {
                work(Err(Errno::EIO));
            }
        }
        if let Some(session) = self.session.take() {
            // Lazily, so that a file still open somewhere does not leave the mount behind.
            succeeds(&mut command(
                "umount",
                ["-l"]
                    .map(OsStr::new)
                    .into_iter()
                    .chain([self.mount_point.as_os_str()]),
            ));
            drop(session);
        }
    }
}

fn lock(files: &Mutex<Vec<Backed>>) -> MutexGuard<'_, Vec<Backed>> {
    files.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The file system: a root folder whose files have the inodes from 2 on.
struct Tree(Shared);

/// Attributes are asked for anew every time.
const NOT_CACHED: Duration = Duration::ZERO;
const FIRST_FILE: u64 = 2;

impl Tree {
    fn index(ino: INodeNo) -> Option<usize> {
        usize::try_from(u64::from(ino).checked_sub(FIRST_FILE)?).ok()
    }

    fn attributes(&self, ino: INodeNo) -> Result<FileAttr, Errno> {
        let mut attributes = FileAttr {
            ino,
            size: 0,
            blocks: 0,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: FileType::Directory,
            perm: 0o700,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            flags: 0,
            blksize: 4096,
        };
        if ino == INodeNo::ROOT {
            return Ok(attributes);
        }
        let files = lock(&self.0);
        let file = Self::index(ino)
            .and_then(|index| files.get(index))
            .ok_or(Errno::ENOENT)?;
        let metadata = file.file.metadata().map_err(Errno::from)?;
        attributes.kind = FileType::RegularFile;
        attributes.perm = 0o600;
        attributes.size = metadata.size();
        attributes.blocks = metadata.blocks();
        Ok(attributes)
    }

    /// Does the rest of an operation, now, later or not at all, as the fault wants it.
    fn submit(&self, ino: INodeNo, kind: Kind, work: Work) {
        let mut files = lock(&self.0);
        let Some(backed) = Self::index(ino).and_then(|index| files.get_mut(index)) else {
            drop(files);
            return work(Err(Errno::ENOENT));
        };
        let file = Arc::clone(&backed.file);
        match backed.fault {
            Fault::Hangs => backed.held.push(work),
            Fault::Slow(duration) => {
                drop(files);
                std::thread::spawn(move || {
                    std::thread::sleep(duration);
                    work(Ok(&file));
                });
            }
            fault => {
                drop(files);
                work(match fault {
                    Fault::Gone => Err(Errno::EIO),
                    Fault::Reads if kind == Kind::Read => Err(Errno::EIO),
                    Fault::Writes(error) if kind == Kind::Change => Err(error),
                    _ => Ok(&file),
                });
            }
        }
    }

    fn change(
        &self,
        ino: INodeNo,
        reply: ReplyEmpty,
        change: impl FnOnce(&File) -> io::Result<()> + Send + 'static,
    ) {
        let work = move |file: Result<&File, Errno>| match file
            .and_then(|file| change(file).map_err(Errno::from))
        {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        };
        self.submit(ino, Kind::Change, Box::new(work));
    }
}

impl Filesystem for Tree {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let index = lock(&self.0)
            .iter()
            .position(|file| parent == INodeNo::ROOT && OsStr::new(&file.name) == name);
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

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let gone = lock(&self.0)
            .get(Self::index(ino).unwrap_or(usize::MAX))
            .is_none_or(|file| file.fault == Fault::Gone);
        if gone {
            return reply.error(Errno::EIO);
        }
        // Nothing is cached in between, and one write that hangs does not hold up the others.
        let flags = FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES;
        reply.opened(FileHandle(0), flags);
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
        let work = move |file: Result<&File, Errno>| {
            let mut data = vec![0; size as usize];
            match file.and_then(|file| read_up_to(file, &mut data, offset).map_err(Errno::from)) {
                Ok(length) => reply.data(&data[..length]),
                Err(error) => reply.error(error),
            }
        };
        self.submit(ino, Kind::Read, Box::new(work));
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
        let data = data.to_vec();
        let work = move |file: Result<&File, Errno>| {
            let written =
                file.and_then(|file| file.write_all_at(&data, offset).map_err(Errno::from));
            match written {
                // FUSE never writes 4 GiB at once.
                Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX)),
                Err(error) => reply.error(error),
            }
        };
        self.submit(ino, Kind::Change, Box::new(work));
    }

    /// Of close(2), where there is nothing to do.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.change(ino, reply, File::sync_data);
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let mode = FallocateFlags::from_bits_retain(mode.cast_unsigned());
        self.change(ino, reply, move |file| {
            Ok(rustix::fs::fallocate(file, mode, offset, length)?)
        });
    }

    fn lseek(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        const SEEK_DATA: i32 = 3;
        let work = move |file: Result<&File, Errno>| {
            let offset = offset.cast_unsigned();
            let from = if whence == SEEK_DATA {
                SeekFrom::Data(offset)
            } else {
                SeekFrom::Hole(offset)
            };
            let found = file.and_then(|file| {
                rustix::fs::seek(file, from).map_err(|error| Errno::from(io::Error::from(error)))
            });
            match found {
                Ok(offset) => reply.offset(offset.cast_signed()),
                Err(error) => reply.error(error),
            }
        };
        self.submit(ino, Kind::Read, Box::new(work));
    }
}

fn read_up_to(file: &File, data: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < data.len() {
        match file.read_at(&mut data[filled..], offset + filled as u64)? {
            0 => break,
            length => filled += length,
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests;
