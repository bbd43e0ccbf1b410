//! The only module with `unsafe` code: operations whose buffers the kernel holds, and reception into memory that
//! was never initialised.

mod buffer;
#[cfg(test)]
mod refusal;
mod ring;

pub(crate) use buffer::recv_now;
#[cfg(test)]
pub(crate) use refusal::refuse_io_uring;
pub(crate) use ring::{Completion, OpId, Request, Ring};
