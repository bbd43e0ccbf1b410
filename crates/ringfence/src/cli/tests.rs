//! What the command line accepts, and what `--help` says (as snapshots, so that a change is seen).

use clap::{CommandFactory, Parser};

use super::{Cli, Command};
use crate::cli::device::DeviceCommand;
use crate::cli::domain::DomainCommand;
use crate::cli::domain::member::MemberCommand;
use crate::cli::volume::VolumeCommand;
use crate::control::protocol::Growth;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("ringfence").chain(line.split_whitespace()))
}

#[test]
fn clap_finds_no_contradictions() {
    Cli::command().debug_assert();
}

#[test]
fn help_teaches() {
    let mut command = Cli::command();
    command.build();
    let mut pages = Vec::new();
    collect(&mut command, "", &mut pages);
    insta::assert_snapshot!("help", pages.join("\n"));
}

fn collect(command: &mut clap::Command, parent: &str, pages: &mut Vec<String>) {
    if command.get_name() == "help" {
        return;
    }
    let name = format!("{parent}{} ", command.get_name());
    let width = "=".repeat(60);
    let help = command.clone().term_width(110).render_long_help();
    let help = help.to_string();
    let lines: Vec<_> = help.lines().map(str::trim_end).collect();
    pages.push(format!(
        "{width}\n{name}--help\n{width}\n{}\n",
        lines.join("\n")
    ));
    for sub in command.get_subcommands_mut() {
        collect(sub, &name, pages);
    }
}

#[test]
fn every_argument_and_command_is_explained() {
    fn check(command: &clap::Command) {
        for argument in command.get_arguments() {
            assert!(
                argument.get_help().is_some(),
                "{} {}",
                command.get_name(),
                argument.get_id()
            );
        }
        for sub in command.get_subcommands() {
            assert!(sub.get_about().is_some(), "{}", sub.get_name());
            check(sub);
        }
    }
    check(&Cli::command());
}

#[test]
fn global_options_go_anywhere() {
    for line in [
        "--json --state /x volume list",
        "volume --json list --state /x",
        "volume list --json --state=/x",
    ] {
        let cli = parse(line).unwrap();
        assert!(cli.global.json, "{line}");
        assert_eq!(cli.global.state.to_str(), Some("/x"), "{line}");
        assert!(matches!(cli.command, Command::Volume(VolumeCommand::List)));
    }
}

#[test]
fn volumes_and_devices() {
    let cli =
        parse("volume create v --size 20G --on a,b --keys-on c --block-size 4096 --persist always")
            .unwrap();
    let Command::Volume(VolumeCommand::Create(args)) = cli.command else {
        panic!("another command")
    };
    assert_eq!(args.size, 20 << 30);
    assert_eq!(args.on, ["a", "b"]);
    assert_eq!(args.keys_on, ["c"]);
    assert_eq!(args.block_size, 4096);
    assert!(args.persist.is_some());

    let cli = parse("volume grow v +1G").unwrap();
    let Command::Volume(VolumeCommand::Grow(args)) = cli.command else {
        panic!("another command")
    };
    assert_eq!(args.size, Growth::By(1 << 30));

    let cli = parse("device add d ./file --size 1G --direct").unwrap();
    let Command::Device(DeviceCommand::Add(args)) = cli.command else {
        panic!("another command")
    };
    assert_eq!((args.size, args.direct), (Some(1 << 30), true));
}

#[test]
fn domains() {
    let cli =
        parse("domain create d --volumes a,b --quorum-device x --quorum-votes 1 --window 500ms")
            .unwrap();
    let Command::Domain(DomainCommand::Create(args)) = cli.command else {
        panic!("another command")
    };
    assert_eq!(args.volumes, ["a", "b"]);
    assert_eq!((args.quorum_votes, args.window), (Some(1), 500));

    let line = "domain member add d m --initiator iqn.x:A --initiator iqn.x:b --method fabric,stonith:x?a=%2C";
    let Command::Domain(DomainCommand::Member(MemberCommand::Add(args))) =
        parse(line).unwrap().command
    else {
        panic!("another command")
    };
    assert_eq!(args.initiators, ["iqn.x:a", "iqn.x:b"]);
    let methods: Vec<_> = args.methods.iter().map(ToString::to_string).collect();
    assert_eq!(methods, ["fabric", "stonith:x?a=%2C"]);

    let Command::Fence(args) = parse("fence d m").unwrap().command else {
        panic!("another command")
    };
    assert_eq!(args.wait, 120_000);
}

#[test]
fn nonsense_is_refused_with_exit_code_2() {
    for line in [
        "",
        "volume",
        "volume create v",
        "volume create v --size 0",
        "volume create v --size 1X",
        "volume create v --size 1G --block-size 1024",
        "volume create v --size 1G --persist sometimes",
        "volume create a/b --size 1G",
        "volume grow v",
        "grant v vm1 rw",
        "grant v iqn.2026-11.com.example:a all",
        "session drop x",
        "domain create d",
        "domain create d --volumes v --quorum-device a --quorum-server b:1",
        "domain create d --volumes v --quorum-server b",
        "domain create d --volumes v --prefer me",
        "domain create d --volumes v --window 2",
        "domain member add d m",
        "domain member add d m --initiator vm1",
        "domain member add d m --initiator iqn.x:y --votes 1000001",
        "domain member add d m --initiator iqn.x:y --method shout",
        "domain race d --with a",
        "fence d",
        "fence d m --wait soon",
        "grant v domain: rw",
        "events --since yesterday",
        "keys",
        "frobnicate",
    ] {
        let error = parse(line).expect_err(line);
        assert_eq!(error.exit_code(), 2, "{line}: {error}");
    }
    assert!(parse("grant v IQN.2026-11.com.example:A none").is_ok());
    assert!(parse("grant v * ro").is_ok());
    assert!(parse("grant v domain:d ro").is_ok());
}
