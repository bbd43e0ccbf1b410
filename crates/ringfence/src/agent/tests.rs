//! The agent against heads that remember what they were asked.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::actions::{Head, Outcome, carry_out};
use super::metadata;
use super::options::{Action, Options};
use crate::control::model::{DomainMember, Fence, MemberFence};
use crate::control::protocol::{Answer, Request};
use crate::failure::Failure;

/// A head with the members `a` and `b`.
#[derive(Clone, Default)]
struct Fake {
    /// Proven, or not yet.
    fenced: Arc<Mutex<Vec<(String, bool)>>>,
    broken: bool,
}

fn member(name: &str, fence: Option<bool>) -> DomainMember {
    DomainMember {
        domain: "prod".into(),
        member: name.into(),
        state: String::new(),
        initiators: Vec::new(),
        votes: 1,
        methods: Vec::new(),
        slot: 0,
        registered: true,
        sessions: 0,
        fence: fence.map(|proven| MemberFence {
            epoch: 1,
            cause: "request".into(),
            proven: proven.then(|| "reservation".into()),
        }),
    }
}

impl Head for Fake {
    fn name(&self) -> String {
        "fake".into()
    }

    fn ask(&mut self, request: Request, _: Duration) -> Result<Answer, Failure> {
        if self.broken {
            return Err(Failure::failed("out of order"));
        }
        let mut fenced = self.fenced.lock().unwrap();
        match request {
            Request::MemberList { .. } => {
                let state = |name: &str| {
                    fenced
                        .iter()
                        .find(|(who, _)| who == name)
                        .map(|(_, proven)| *proven)
                };
                Ok(Answer::Members(vec![
                    member("a", state("a")),
                    member("b", state("b")),
                ]))
            }
            Request::Fence {
                domain,
                member,
                wait_ms,
                ..
            } => {
                assert_eq!(wait_ms, 60_000);
                fenced.push((member.clone(), true));
                Ok(Answer::Fence(Fence {
                    domain,
                    member,
                    epoch: 1,
                    proven: "reservation".into(),
                    not_served: Vec::new(),
                }))
            }
            Request::Unfence { member, .. } => {
                fenced.retain(|(who, _)| *who != member);
                Ok(Answer::Done)
            }
            other => panic!("{other:?}"),
        }
    }
}

fn act(text: &str, fakes: &[&Fake]) -> Result<Outcome, String> {
    let options = Options::from_lines(text)?;
    let mut heads: Vec<Box<dyn Head>> = Vec::new();
    for fake in fakes {
        heads.push(Box::new((*fake).clone()));
    }
    carry_out(&options, &mut heads)
}

#[test]
fn a_member_goes_off_and_on_on_every_head() {
    let (one, two) = (Fake::default(), Fake::default());
    let heads = [&one, &two];
    let status = |plug: &str| {
        act(
            &format!("action=status\ndomain=prod\nplug={plug}\n"),
            &heads,
        )
        .map(|outcome| outcome.status)
    };
    assert_eq!(status("a"), Ok(0));
    // By whatever name the cluster manager calls it, with options that nobody knows.
    for line in ["action=off\nport=a", "option=reboot\nnodename=a\nverbose=1"] {
        assert_eq!(
            act(&format!("# comment\n{line}\ndomain=prod\n"), &heads)
                .unwrap()
                .status,
            0
        );
        assert_eq!(status("a"), Ok(2));
        assert_eq!(status("b"), Ok(0));
        assert_eq!(
            act("action=on\nplug=a\ndomain=prod\n", &heads)
                .unwrap()
                .status,
            0
        );
        assert_eq!(status("a"), Ok(0));
    }
    assert!(status("c").is_err());
}

#[test]
fn off_is_what_is_proven_everywhere() {
    let (one, two) = (Fake::default(), Fake::default());
    let heads = [&one, &two];
    let status = || {
        act("action=status\ndomain=prod\nplug=a\n", &heads)
            .unwrap()
            .status
    };
    one.fenced.lock().unwrap().push(("a".into(), true));
    assert_eq!(status(), 0, "the other head has not fenced it");
    two.fenced.lock().unwrap().push(("a".into(), false));
    assert_eq!(status(), 0, "the other head has no proof");
    two.fenced.lock().unwrap()[0].1 = true;
    assert_eq!(status(), 2);
    let list = act("action=list-status\ndomain=prod\n", &heads).unwrap();
    assert_eq!(list.lines, ["a,a,off", "b,b,on"]);
    assert_eq!(
        act("action=list\ndomain=prod\n", &heads).unwrap().lines,
        ["a,a", "b,b"]
    );
}

#[test]
fn a_head_that_fails_fails_the_action_and_the_others_do_it() {
    let (broken, well) = (
        Fake {
            broken: true,
            ..Fake::default()
        },
        Fake::default(),
    );
    let error = act("action=off\ndomain=prod\nplug=a\n", &[&broken, &well]).unwrap_err();
    assert!(error.contains("out of order"), "{error}");
    assert_eq!(well.fenced.lock().unwrap().len(), 1);
    for action in ["monitor", "status", "on", "list"] {
        assert!(
            act(
                &format!("action={action}\ndomain=prod\nplug=a\n"),
                &[&broken, &well]
            )
            .is_err(),
            "{action}"
        );
    }
    assert!(act("action=monitor\ndomain=prod\n", &[&well]).is_ok());
}

#[test]
fn options_are_looked_at() {
    let arguments = |text: &str| {
        let all: Vec<String> = text.split(' ').map(str::to_owned).collect();
        Options::from_arguments(&all)
    };
    let options = arguments(
        "-o off --plug=a --domain prod --power-timeout 5s --method fabric,stonith:fence_x?a=b",
    )
    .unwrap();
    assert_eq!(
        (options.action, options.plug.as_deref()),
        (Action::Off, Some("a"))
    );
    assert_eq!(
        (options.power_timeout, options.methods.len()),
        (Duration::from_secs(5), 2)
    );
    assert_eq!(
        arguments("-ostatus -na --domain=prod").unwrap().action,
        Action::Status
    );
    for wrong in [
        "off",
        "--sudo=1",
        "-o",
        "-o stop --domain=d",
        "-o off --domain=d",
        "-o off --plug=a",
        "-o off --plug=a --domain=d --ip=head1",
        "-o off --plug=a --domain=d --ip=:x",
        "-o off --plug=a --domain=d --power-timeout=soon",
        "-o off --plug=a --domain=d --method=shout",
    ] {
        assert!(arguments(wrong).is_err(), "{wrong}");
    }
    assert!(Options::from_lines("action\n").is_err());
}

#[test]
fn the_metadata_name_every_option() {
    let xml = metadata::xml().join("\n");
    for parameter in metadata::PARAMETERS {
        assert!(xml.contains(&format!(r#"<parameter name="{}""#, parameter.name)));
    }
    assert!(xml.contains(r#"<action name="on" on_target="1" automatic="1" />"#));
    assert_eq!(
        xml.matches("<parameter ").count(),
        xml.matches("</parameter>").count()
    );
}
