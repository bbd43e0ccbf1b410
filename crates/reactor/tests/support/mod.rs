//! What the tests share: every test runs on both backends.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reactor::{Backend, BackendChoice, Config, Runtime, TcpStream};

/// The configurations that every test runs with: both backends, with and without a look around before sleep.
pub fn configs(reactors: usize) -> Vec<Config> {
    let config = |backend, spin_us| Config {
        reactors,
        backend,
        spin: Duration::from_micros(spin_us),
        ..Config::default()
    };
    vec![
        config(BackendChoice::IoUring, 0),
        config(BackendChoice::IoUring, 50),
        config(BackendChoice::Epoll, 0),
        config(BackendChoice::Epoll, 50),
    ]
}

/// Runs `test` on a reactor of each backend.
#[allow(dead_code, reason = "not every test file needs it")]
pub fn on_both<F: Future<Output = ()> + 'static>(test: impl Fn() -> F) {
    for config in configs(1) {
        eprintln!("on {:?}", config.backend);
        reactor::block_on(&config, test()).unwrap();
    }
}

/// Runs `test` with a runtime of `reactors` threads on each backend.
#[allow(dead_code, reason = "not every test file needs it")]
pub fn with_both(reactors: usize, test: impl Fn(&Runtime)) {
    for config in configs(reactors) {
        eprintln!("on {:?}", config.backend);
        let runtime = Runtime::start(&config).unwrap();
        let expected = match config.backend {
            BackendChoice::Epoll => Backend::Epoll,
            _ => Backend::IoUring,
        };
        assert_eq!(runtime.handles()[0].backend(), expected);
        test(&runtime);
        runtime.shutdown();
    }
}

/// Any free port of the IPv4 loopback.
#[allow(dead_code, reason = "not every test file needs it")]
pub fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// Receives exactly `count` bytes.
#[allow(dead_code, reason = "not every test file needs it")]
pub async fn recv_exact(stream: &TcpStream, count: usize) -> Bytes {
    let mut buf = BytesMut::with_capacity(count);
    while buf.len() < count {
        let (result, back) = stream.recv(buf).await;
        buf = back;
        assert_ne!(
            result.unwrap(),
            0,
            "the stream ended after {} bytes",
            buf.len()
        );
    }
    buf.truncate(count);
    buf.freeze()
}

/// Bytes that tell where they belong.
#[allow(dead_code, reason = "not every test file needs it")]
pub fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}
