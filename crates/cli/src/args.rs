//! The command line: every command, flag and help text, and nothing that acts.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Confidential computing for DevSecOps: programs in enclaves, releases nobody can slip into.
#[derive(Debug, Parser)]
#[command(name = "casemate", version, propagate_version = true, max_term_width = 80)]
#[command(
    after_help = "Exit status: 0 done, 1 refused, 2 usage, 3 environment; `run` ends as its \
program does.\nEvery refusal has a stable code: see docs/errors.md."
)]
pub struct Cli {
    /// Installation directory [default: nearest .casemate at or above the current directory].
    #[arg(long, global = true, env = "CASEMATE_DIR", value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// How results are written to standard output.
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    #[command(subcommand)]
    pub command: Command,
}

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON value.
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what this machine's TEE is, what is protected and what not.
    Doctor,
    /// Make an installation: trust file, service keys, empty ledger.
    Init(Init),
    /// Run ledger, broker and signer, each in its own enclave.
    Serve(Serve),
    /// Stop the services of this installation.
    Stop,
    /// Print a workload's measurement without running it, or what differs between two.
    Measure(Measure),
    /// Run a program, unmodified, in an enclave.
    Run(Run),
    /// Keep secrets and say which workload gets them.
    #[command(subcommand)]
    Secret(Secret),
    /// Build verified source in an attested, observed enclave.
    Build(Build),
    /// Add one person's approval to a release bundle.
    Approve(Approve),
    /// Have the signer's enclave check a bundle and sign the release.
    Sign(Sign),
    /// Check an artifact against its release bundle, offline.
    Verify(Verify),
    /// Follow an artifact back to the developers who wrote it.
    Trace(Trace),
    /// Read and check the ledger.
    #[command(subcommand)]
    Ledger(Ledger),
    /// Make, read and judge TEE evidence.
    #[command(subcommand)]
    Evidence(Evidence),
    /// Show and change whom this installation trusts.
    #[command(subcommand)]
    Trust(TrustCommand),
    /// Show the main job on a repository of its own, then attack it.
    Demo(Demo),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page (roff).
    Man,
    /// What runs inside the services' enclaves.
    #[command(hide = true, subcommand)]
    Service(Service),
}

#[derive(Debug, Args)]
pub struct Init {
    /// An approver and their SSH public key; once per key, a repeated name adds a key.
    #[arg(long = "approver", value_name = "NAME=KEY.pub", required = true)]
    pub approvers: Vec<String>,
    /// How many different approvers a release needs.
    #[arg(long, value_name = "K")]
    pub threshold: usize,
    /// How many different approvers an act on secrets needs [default: the release threshold].
    #[arg(long, value_name = "K")]
    pub admin_threshold: Option<usize>,
    /// How many different approvers a new trust file needs [default: the release threshold].
    #[arg(long, value_name = "K")]
    pub trust_threshold: Option<usize>,
    /// SSH allowed-signers file: whose commits are source.
    #[arg(long, value_name = "ALLOWED_SIGNERS")]
    pub developers: Option<PathBuf>,
    /// Armored OpenPGP certificate of a developer; may be repeated.
    #[arg(long = "developer-openpgp", value_name = "CERT.asc")]
    pub developers_openpgp: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Serve {
    /// Go to the background once every service answers.
    #[arg(long)]
    pub detach: bool,
    /// First of three consecutive loopback ports (ledger, broker, signer) [default: free ones].
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
}

/// What runs, as `run`, `measure` and `evidence produce` share it.
#[derive(Debug, Args)]
pub struct Workload {
    /// casemate.toml with the enclave's settings.
    #[arg(long, value_name = "FILE")]
    pub spec: Option<PathBuf>,
    /// Root of the enclave: `host` (program and libraries) or `dir:PATH`.
    #[arg(long, value_name = "ROOT")]
    pub root: Option<String>,
    /// Program and arguments; replaces the spec's command.
    #[arg(last = true, value_name = "PROGRAM")]
    pub command: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Measure {
    #[command(flatten)]
    pub workload: Workload,
    /// Compare two files written by `measure -o`, or FILE with what would run now.
    #[arg(long, num_args = 1..=2, value_names = ["A", "B"])]
    pub diff: Vec<PathBuf>,
    /// Also write the measurement with all that went into it.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    pub workload: Workload,
}

/// People's signatures on an administrative act.
#[derive(Debug, Args)]
pub struct ActKeys {
    /// Approver's SSH private key; once per approver until the threshold is met.
    #[arg(long = "key", value_name = "SSHKEY")]
    pub keys: Vec<PathBuf>,
    /// Write the unsigned act to FILE, to be signed elsewhere (`ssh-keygen -Y sign -n casemate-act`).
    #[arg(long, value_name = "FILE", conflicts_with = "keys")]
    pub print: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum Secret {
    /// Store a secret, sealed to the broker before it leaves this process.
    Put {
        /// Its name.
        name: String,
        /// File with the value [default: standard input].
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        #[command(flatten)]
        keys: ActKeys,
    },
    /// Let a workload have a secret.
    Grant {
        /// Its name.
        name: String,
        /// The workload with this measurement.
        #[arg(
            long,
            value_name = "HEX",
            conflicts_with = "release",
            required_unless_present = "release"
        )]
        measurement: Option<String>,
        /// The workload of this release: its program, run as its own casemate.toml says (or as
        /// --spec and the arguments after `--` say), with this machine's libraries.
        #[arg(long, value_name = "BUNDLE")]
        release: Option<PathBuf>,
        #[command(flatten)]
        workload: Workload,
        #[command(flatten)]
        keys: ActKeys,
    },
    /// Take back a grant, or all of them.
    Revoke {
        /// Its name.
        name: String,
        /// Only the grant to this measurement.
        #[arg(long, value_name = "HEX", conflicts_with = "release")]
        measurement: Option<String>,
        /// Only the grant to this release.
        #[arg(long, value_name = "BUNDLE")]
        release: Option<PathBuf>,
        #[command(flatten)]
        workload: Workload,
        /// Forget the secret itself too.
        #[arg(long, conflicts_with_all = ["measurement", "release"])]
        all: bool,
        #[command(flatten)]
        keys: ActKeys,
    },
    /// Send an act that people signed elsewhere.
    Submit {
        /// The act, as `--print` wrote it.
        act: PathBuf,
        /// Armored SSH signatures.
        #[arg(long = "signature", value_name = "FILE", required = true)]
        signatures: Vec<PathBuf>,
        /// The release bundle, for a grant to a release.
        #[arg(long, value_name = "BUNDLE")]
        bundle: Option<PathBuf>,
    },
    /// List names and grants; never values.
    List,
}

#[derive(Debug, Args)]
pub struct Build {
    /// The git repository.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub repo: PathBuf,
    /// What to build: a commit, tag or branch.
    #[arg(long, value_name = "REV")]
    pub rev: Option<String>,
    /// Directory for the artifacts and bundle.json.
    #[arg(short, long, value_name = "OUT")]
    pub output: PathBuf,
}

#[derive(Debug, Args)]
pub struct Approve {
    /// The release bundle; completed in place.
    pub bundle: PathBuf,
    /// Sign with this SSH private key.
    #[arg(long, value_name = "SSHKEY")]
    pub key: Option<PathBuf>,
    /// Print the bytes to sign: `| ssh-keygen -Y sign -n casemate-approval -f KEY`.
    #[arg(long, conflicts_with_all = ["key", "signature"])]
    pub print: bool,
    /// Add a signature made elsewhere.
    #[arg(long, value_name = "FILE.sig", conflicts_with = "key")]
    pub signature: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Sign {
    /// The release bundle; completed in place.
    pub bundle: PathBuf,
}

#[derive(Debug, Args)]
pub struct Verify {
    /// The file to check.
    pub artifact: PathBuf,
    /// Its release bundle.
    #[arg(long, value_name = "BUNDLE")]
    pub bundle: PathBuf,
    /// The trust file to believe.
    #[arg(long, value_name = "TRUST")]
    pub trust: PathBuf,
    /// Also compare the trust file's installation with this digest, as `init` printed it.
    #[arg(long, value_name = "SHA256")]
    pub trust_root: Option<String>,
}

#[derive(Debug, Args)]
pub struct Trace {
    /// The shipped file.
    pub artifact: PathBuf,
    /// Its release bundle.
    #[arg(long, value_name = "BUNDLE")]
    pub bundle: PathBuf,
    /// Check the bundle against this trust file [default: the installation's].
    #[arg(long, value_name = "TRUST")]
    pub trust: Option<PathBuf>,
    /// The repository, for answers by line.
    #[arg(long, value_name = "DIR")]
    pub repo: Option<PathBuf>,
    /// Only this source file.
    #[arg(long, value_name = "FILE")]
    pub file: Option<String>,
    /// Only this line of it (needs --repo).
    #[arg(long, value_name = "N", requires = "file")]
    pub line: Option<u32>,
}

#[derive(Debug, Subcommand)]
pub enum Ledger {
    /// List entries and the signed checkpoint.
    Show {
        /// Show this entry alone, with its statement.
        #[arg(long, value_name = "INDEX")]
        index: Option<u64>,
    },
    /// Print an entry's inclusion proof, verified.
    Prove {
        /// Number of the entry.
        index: u64,
    },
    /// Check that the log only grew since a checkpoint.
    Consistency {
        /// File with an older checkpoint, as `ledger show --format json` or this prints it.
        #[arg(long, value_name = "CHECKPOINT")]
        from: PathBuf,
    },
    /// Check every byte of the log's files against its signed checkpoint; needs no service.
    Verify {
        /// Directory of the log [default: the installation's].
        #[arg(long, value_name = "DIR")]
        log: Option<PathBuf>,
        /// Trust file that names the log's key [default: the installation's].
        #[arg(long, value_name = "TRUST")]
        trust: Option<PathBuf>,
        /// A checkpoint seen earlier: the log must not be older nor another.
        #[arg(long, value_name = "CHECKPOINT")]
        known: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub enum Evidence {
    /// Start an enclave as `run` would, have it prove itself, and do not run the program.
    Produce {
        /// The verifier's nonce, 64 hexadecimal digits.
        #[arg(long, value_name = "HEX")]
        nonce: String,
        /// Where the evidence goes [default: standard output].
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        #[command(flatten)]
        workload: Workload,
    },
    /// Show what evidence says, field by field; judges nothing.
    Inspect {
        /// Evidence record or raw SEV-SNP report.
        file: PathBuf,
    },
    /// Judge evidence against a trust file.
    Verify {
        /// Evidence record.
        file: PathBuf,
        /// The trust file.
        #[arg(long, value_name = "TRUST")]
        trust: PathBuf,
        /// The nonce it must answer, 64 hexadecimal digits.
        #[arg(long, value_name = "HEX")]
        nonce: String,
        /// The workload measurement it must have.
        #[arg(long, value_name = "HEX")]
        measurement: Option<String>,
        /// Judge as of this time (RFC 3339) [default: now].
        #[arg(long, value_name = "TIME")]
        at: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub enum TrustCommand {
    /// Show the trust file.
    Show,
    /// Write the next version, with changes, to be signed by the approvers.
    Propose {
        /// Where it goes.
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        /// Replace the approvers; once per key.
        #[arg(long = "approver", value_name = "NAME=KEY.pub")]
        approvers: Vec<String>,
        /// Approvers a release needs.
        #[arg(long, value_name = "K")]
        threshold: Option<usize>,
        /// Approvers an act on secrets needs.
        #[arg(long, value_name = "K")]
        admin_threshold: Option<usize>,
        /// Approvers a new trust file needs.
        #[arg(long, value_name = "K")]
        trust_threshold: Option<usize>,
        /// Replace the developers with SSH keys; those with OpenPGP keys stay.
        #[arg(long, value_name = "ALLOWED_SIGNERS")]
        developers: Option<PathBuf>,
        /// Replace the developers with OpenPGP keys; those with SSH keys stay. May be repeated.
        #[arg(long = "developer-openpgp", value_name = "CERT.asc")]
        developers_openpgp: Vec<PathBuf>,
    },
    /// Add an approver's signature to a proposed version.
    Sign {
        /// The proposed trust file.
        file: PathBuf,
        /// Approver's SSH private key.
        #[arg(long, value_name = "SSHKEY")]
        key: PathBuf,
    },
    /// Check a proposed version's signatures and put it into force.
    Install {
        /// The signed trust file.
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
pub struct Demo {
    /// Leave the demo's directory for exploring, and say where it is.
    #[arg(long)]
    pub keep: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub enum Service {
    /// The log.
    Ledger,
    /// The secret broker.
    Broker,
    /// The release signer.
    Signer,
    /// One build.
    Builder,
}
