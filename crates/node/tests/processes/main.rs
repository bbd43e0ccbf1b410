//! Real node processes over one file as mailbox, a network that is cut direction by direction, and a head that decides
//! by the plain rule. What is tested is what the core's own tests cannot: processes, sockets, direct I/O, hooks, watchdog.

#![allow(clippy::unwrap_used)]

mod cluster;

use std::time::Duration;

use cluster::Cluster;

#[test]
fn partition_pause_kill_and_stop() {
    let mut cluster = Cluster::new(3);
    for node in 0..3 {
        cluster.boot(node);
    }
    cluster.wait("all are members of one view", |cluster| {
        let views: Vec<_> = (0..3).map(|node| cluster.status(node)).collect();
        views.iter().all(|status| {
            status["status"] == "member"
                && status["access"] == true
                && status["view"] == views[0]["view"]
                && status["view"]["members"]
                    .as_array()
                    .is_some_and(|members| members.len() == 3)
        })
    });
    assert!(cluster.hooks(0).is_empty());
    assert!(cluster.petted(2), "the watchdog runs");

    // A partition. vm2 loses; it is told, and its watchdog is left alone.
    cluster.isolate(2, true);
    cluster.wait("vm2 is fenced, and the others know", |cluster| {
        cluster.hooks(0) == ["won 1 vm2"]
            && cluster.hooks(1) == ["won 1 vm2"]
            && cluster.hooks(2) == ["lost 1 race"]
    });
    cluster.wait("vm2 says so", |cluster| {
        let status = cluster.status(2);
        status["status"] == "fenced" && status["access"] == false
    });
    cluster.isolate(2, false);
    let pets = cluster.pets(2);

    // The same boot stays fenced, the next one is let in.
    cluster.kill(2);
    cluster.start(2);
    cluster.wait("vm2 asks", |cluster| {
        cluster.status(2)["status"] == "fenced"
    });
    assert_eq!(cluster.pets(2), pets, "a fenced member's watchdog");
    assert!(cluster.is_fenced(2));
    cluster.kill(2);
    cluster.boot(2);
    cluster.wait("vm2 is back", |cluster| {
        (0..3).all(|node| {
            cluster.status(node)["view"]["members"]
                .as_array()
                .is_some_and(|members| members.len() == 3)
        }) && cluster.status(2)["status"] == "member"
    });

    // A pause: the others go on, and it finds out before it does anything.
    let beats = cluster.races();
    cluster.signal(1, rustix::process::Signal::STOP);
    cluster.wait("vm1 is fenced", |cluster| cluster.is_fenced(1));
    cluster.wait("vm0 knows", |cluster| {
        cluster
            .hooks(0)
            .last()
            .is_some_and(|hook| hook.ends_with(" vm1"))
    });
    cluster.signal(1, rustix::process::Signal::CONT);
    cluster.wait("vm1 knows", |cluster| {
        cluster
            .hooks(1)
            .last()
            .is_some_and(|hook| hook.starts_with("fenced "))
    });
    assert_eq!(cluster.races(), beats + 1, "it has claimed nothing itself");

    // A stop in order: nobody races. A kill: somebody does.
    cluster.stop(2);
    std::thread::sleep(Duration::from_millis(2 * cluster::TIMEOUT_MS));
    assert_eq!(cluster.races(), beats + 1);
    assert!(cluster.closed(2), "the watchdog is stopped in order");
    cluster.boot(2);
    cluster.wait("vm2 is back again", |cluster| {
        cluster.status(2)["status"] == "member"
    });
    cluster.kill(2);
    cluster.wait("vm2 is fenced again", |cluster| cluster.is_fenced(2));
    // The head knows it a moment earlier than the winner.
    cluster.wait("vm0 goes on", |cluster| {
        cluster.status(0)["status"] == "member"
    });
}
