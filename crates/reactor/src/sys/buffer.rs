//! Reception into the spare capacity of a buffer.

use std::os::fd::BorrowedFd;

use bytes::BytesMut;
use rustix::io::Errno;
use rustix::net::RecvFlags;

/// Receives what is there without waiting, into the spare capacity of `buf`; 0 is the end of the stream.
pub(crate) fn recv_now(fd: BorrowedFd<'_>, buf: &mut BytesMut) -> Result<usize, Errno> {
    let (received, _) = rustix::net::recv(fd, buf.spare_capacity_mut(), RecvFlags::DONTWAIT)?;
    let count = received.0.len();
    let length = buf.len() + count;
    // SAFETY: rustix says that the kernel has written the first `count` bytes of the spare capacity.
    unsafe { buf.set_len(length) };
    Ok(count)
}
