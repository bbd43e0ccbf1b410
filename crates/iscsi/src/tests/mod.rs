//! Both ends against each other, and the target against what no good initiator sends.

mod data;
mod hostile;
mod login;
mod pair;
mod protocol;
mod raw;
mod session;
mod transfer;
