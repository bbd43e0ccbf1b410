//! TCP on both backends.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::net::{Ipv6Addr, Shutdown, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reactor::{TcpListener, TcpStream, sleep, spawn_local, timeout};
use support::{loopback, on_both, pattern, recv_exact, with_both};

async fn echo(stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    loop {
        let (result, buf) = stream.recv(BytesMut::with_capacity(64 * 1024)).await;
        if result.unwrap() == 0 {
            return;
        }
        stream.send_vectored(vec![buf.freeze()]).await.0.unwrap();
    }
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(loopback()).unwrap();
    let client = TcpStream::connect(listener.local_addr()).await.unwrap();
    let server = listener.accept().await.unwrap().into_stream().unwrap();
    assert_eq!(server.peer_addr(), client.local_addr());
    assert_eq!(client.peer_addr(), server.local_addr());
    (client, server)
}

/// Connections are accepted on one reactor and served on several, under load.
#[test]
fn echo_under_load_over_several_reactors() {
    with_both(3, |runtime| {
        let reactors = runtime.reactors();
        let (tell, told) = std::sync::mpsc::channel();
        runtime.handles()[0].spawn(move || async move {
            let listener = TcpListener::bind(loopback()).unwrap();
            tell.send(listener.local_addr()).unwrap();
            loop {
                let accepted = listener.accept().await.unwrap();
                reactors.pick().spawn(move || async move {
                    echo(accepted.into_stream().unwrap()).await;
                });
            }
        });
        let addr = told.recv().unwrap();
        let clients: Vec<_> = (0..24_u64)
            .map(|client| {
                runtime.pick().spawn(move || async move {
                    let stream = TcpStream::connect(addr).await.unwrap();
                    for round in 0..200_u64 {
                        let length = (client * 997 + round * 131) as usize % 20_000 + 1;
                        let data = Bytes::from(pattern(client << 32 | round, length));
                        let (sent, received) = futures_lite::future::zip(
                            stream.send_vectored(vec![data.clone()]),
                            recv_exact(&stream, length),
                        )
                        .await;
                        sent.0.unwrap();
                        assert!(received == data, "client {client} round {round}");
                    }
                })
            })
            .collect();
        for client in clients {
            client.wait().unwrap();
        }
    });
}

#[test]
fn many_connections_at_once() {
    with_both(2, |runtime| {
        let (tell, told) = std::sync::mpsc::channel();
        runtime.handles()[0].spawn(move || async move {
            let listener = TcpListener::bind(loopback()).unwrap();
            tell.send(listener.local_addr()).unwrap();
            loop {
                let stream = listener.accept().await.unwrap().into_stream().unwrap();
                spawn_local(echo(stream));
            }
        });
        let addr = told.recv().unwrap();
        let done = runtime.handles()[1].spawn(move || async move {
            let mut streams = Vec::new();
            for _ in 0..500 {
                streams.push(TcpStream::connect(addr).await.unwrap());
            }
            for (number, stream) in streams.iter().enumerate() {
                let data = Bytes::from(pattern(number as u64, 100));
                stream.send_vectored(vec![data]).await.0.unwrap();
            }
            for (number, stream) in streams.iter().enumerate() {
                assert_eq!(recv_exact(stream, 100).await, pattern(number as u64, 100));
            }
        });
        done.wait().unwrap();
        assert_eq!(runtime.handles()[1].stream_count(), 0);
    });
}

/// A reception that is given up loses nothing: the next one gets the bytes, also with a smaller buffer.
#[test]
fn dropped_reception_loses_no_bytes() {
    on_both(|| async {
        let (client, server) = pair().await;
        for round in 0..50_u64 {
            let waiting = server.recv(BytesMut::with_capacity(4096));
            assert!(timeout(Duration::from_millis(1), waiting).await.is_err());
            let data = pattern(round, 3000);
            client
                .send_vectored(vec![Bytes::from(data.clone())])
                .await
                .0
                .unwrap();
            if round % 2 == 0 {
                sleep(Duration::from_millis(1)).await;
            }
            let mut got = Vec::new();
            while got.len() < data.len() {
                let (result, buf) = server.recv(BytesMut::with_capacity(700)).await;
                assert_eq!(result.unwrap(), buf.len());
                got.extend_from_slice(&buf);
            }
            assert!(got == data);
        }
    });
}

/// The end of the stream that a given-up reception saw is not lost either.
#[test]
fn dropped_reception_keeps_the_end_of_the_stream() {
    on_both(|| async {
        let (client, server) = pair().await;
        let waiting = server.recv(BytesMut::with_capacity(4096));
        assert!(timeout(Duration::from_millis(1), waiting).await.is_err());
        drop(client);
        sleep(Duration::from_millis(2)).await;
        let (result, _) = server.recv(BytesMut::with_capacity(4096)).await;
        assert_eq!(result.unwrap(), 0);
    });
}

/// A stream that is dropped with a reception in the kernel closes all the same, and the peer sees it.
#[test]
fn drop_with_reception_in_flight_closes() {
    on_both(|| async {
        for _ in 0..50 {
            let (client, server) = pair().await;
            let waiting = server.recv(BytesMut::with_capacity(1 << 20));
            assert!(timeout(Duration::from_micros(100), waiting).await.is_err());
            drop(server);
            let (result, _) = timeout(
                Duration::from_secs(10),
                client.recv(BytesMut::with_capacity(16)),
            )
            .await
            .expect("the connection was not closed");
            assert_eq!(result.unwrap(), 0);
        }
    });
}

/// A task that waits for bytes and is aborted drops its stream, which closes.
#[test]
fn abort_of_a_receiving_task_closes() {
    on_both(|| async {
        let (client, server) = pair().await;
        let task = spawn_local(async move {
            let (result, _) = server.recv(BytesMut::with_capacity(64)).await;
            result.unwrap()
        });
        sleep(Duration::from_millis(1)).await;
        task.abort();
        assert_eq!(task.await, Err(reactor::JoinError::Cancelled));
        let (result, _) = client.recv(BytesMut::with_capacity(16)).await;
        assert_eq!(result.unwrap(), 0);
    });
}

/// A reader that lets the socket fill up makes the sender wait, not lose or reorder.
#[test]
fn slow_reader_gets_everything_in_order() {
    on_both(|| async {
        let (client, server) = pair().await;
        let total = 24 << 20;
        let sender = spawn_local(async move {
            // Far more pieces than one sendmsg takes, of sizes that never fit evenly.
            let data = Bytes::from(pattern(7, total));
            let mut pieces = Vec::new();
            let mut start = 0;
            while start < total {
                let end = (start + 1 + start % 9973).min(total);
                pieces.push(data.slice(start..end));
                pieces.push(Bytes::new());
                start = end;
            }
            let (result, emptied) = client.send_vectored(pieces).await;
            result.unwrap();
            assert!(emptied.is_empty());
        });
        sleep(Duration::from_millis(20)).await;
        assert!(!sender.is_finished(), "24 MiB fit into a socket's buffer");
        let mut got = Vec::new();
        while got.len() < total {
            let (result, buf) = server.recv(BytesMut::with_capacity(100_000)).await;
            assert_ne!(result.unwrap(), 0);
            got.extend_from_slice(&buf);
            if got.len() % 7 == 0 {
                sleep(Duration::from_micros(50)).await;
            }
        }
        assert!(got == pattern(7, total));
        sender.await.unwrap();
    });
}

#[test]
fn both_directions_at_once_on_one_stream() {
    on_both(|| async {
        let (client, server) = pair().await;
        let echo = spawn_local(echo(server));
        let client = Rc::new(client);
        let total = 8 << 20;
        let sender = client.clone();
        let sending = spawn_local(async move {
            for chunk in pattern(3, total).chunks(60_000) {
                let data = vec![Bytes::copy_from_slice(chunk)];
                sender.send_vectored(data).await.0.unwrap();
            }
        });
        assert!(recv_exact(&client, total).await == pattern(3, total));
        sending.await.unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        echo.await.unwrap();
    });
}

#[test]
fn shutdown_ends_a_waiting_reception() {
    on_both(|| async {
        let (_client, server) = pair().await;
        let server = Rc::new(server);
        let receiver = server.clone();
        let task = spawn_local(async move {
            let (result, buf) = receiver.recv(BytesMut::with_capacity(64)).await;
            (result.unwrap(), buf.len())
        });
        sleep(Duration::from_millis(1)).await;
        server.shutdown(Shutdown::Both).unwrap();
        assert_eq!(task.await.unwrap(), (0, 0));
        let sent = server.send_vectored(vec![Bytes::from_static(b"x")]).await;
        assert!(sent.0.is_err());
    });
}

#[test]
fn reception_appends_and_refuses_a_full_buffer() {
    on_both(|| async {
        let (client, server) = pair().await;
        client
            .send_vectored(vec![Bytes::from_static(b"world")])
            .await
            .0
            .unwrap();
        let mut buf = BytesMut::with_capacity(64);
        buf.extend_from_slice(b"hello ");
        let (result, buf) = server.recv(buf).await;
        assert_eq!(result.unwrap(), 5);
        assert_eq!(&buf[..], b"hello world");
        let (result, _) = server.recv(BytesMut::new()).await;
        assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
    });
}

#[test]
fn second_receiver_is_refused() {
    on_both(|| async {
        let (_client, server) = pair().await;
        let server = Rc::new(server);
        let receiver = server.clone();
        let waiting = spawn_local(async move { receiver.recv(BytesMut::with_capacity(8)).await.0 });
        sleep(Duration::from_millis(1)).await;
        let (result, _) = server.recv(BytesMut::with_capacity(8)).await;
        assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::ResourceBusy);
        waiting.abort();
    });
}

#[test]
fn ipv6_and_ipv4_share_a_port() {
    on_both(|| async {
        let six = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0).into()).unwrap();
        let port = six.local_addr().port();
        let four = TcpListener::bind(([0, 0, 0, 0], port).into()).unwrap();
        let client = TcpStream::connect(SocketAddr::from((Ipv6Addr::LOCALHOST, port)))
            .await
            .unwrap();
        assert_eq!(six.accept().await.unwrap().peer_addr(), client.local_addr());
        let client = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port)))
            .await
            .unwrap();
        assert_eq!(
            four.accept().await.unwrap().peer_addr(),
            client.local_addr()
        );
    });
}

#[test]
fn refused_connection_is_an_error() {
    on_both(|| async {
        let listener = TcpListener::bind(loopback()).unwrap();
        let addr = listener.local_addr();
        drop(listener);
        let error = TcpStream::connect(addr).await.err().unwrap();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    });
}

/// A dropped accept leaves the connection to the next one.
#[test]
fn dropped_accept_loses_no_connection() {
    on_both(|| async {
        let listener = TcpListener::bind(loopback()).unwrap();
        assert!(
            timeout(Duration::from_millis(1), listener.accept())
                .await
                .is_err()
        );
        let client = TcpStream::connect(listener.local_addr()).await.unwrap();
        let accepted = timeout(Duration::from_secs(10), listener.accept())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(accepted.peer_addr(), client.local_addr());
    });
}
