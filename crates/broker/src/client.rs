//! The broker's other end, for the command line and the starting half of an enclave.

use casemate_service::ServiceError;
use casemate_service::answer::{Answer, question_nonce};
use casemate_service::client::Http;
use casemate_spec::Sha256;
use casemate_spec::trust::Trust;
use casemate_statement::PublicKey;
use casemate_statement::intoto::Statement;
use casemate_statement::json::Base64;
use casemate_statement::rekor::HashedRekord;

use crate::act::{ActAnswer, ActRequest};
use crate::change::Change;
use crate::info::{INFO_DOMAIN, Info, LIST_DOMAIN, List};

/// The most bytes that are relayed in either direction.
const MAX_RELAYED: usize = 32 << 20;

/// Talks to a broker.
#[derive(Debug, Clone)]
pub struct Client {
    http: Http,
}

impl Client {
    /// The broker at `base` (`http://127.0.0.1:PORT`).
    pub fn new(base: &str) -> Self {
        Self { http: Http::new(base) }
    }

    /// Carries a workload's request (`/v1/challenge` or `/v1/release`) to the broker and gives its
    /// answer, good or bad, as it came. Both ends protect what they say from whoever carries it.
    ///
    /// # Errors
    /// For another path, or if the broker does not answer.
    pub fn relay(&self, path: &str, body: &[u8]) -> Result<Vec<u8>, ServiceError> {
        let url = || self.http.base().to_owned();
        if !matches!(path, "/v1/challenge" | "/v1/release") || body.len() > MAX_RELAYED {
            return Err(ServiceError::Answer {
                url: url(),
                problem: "expected a challenge or a release to relay".into(),
            });
        }
        match self.http.post(path, body) {
            Err(ServiceError::Refused(problem)) => serde_json::to_vec(&problem)
                .map_err(|e| ServiceError::Answer { url: url(), problem: e.to_string() }),
            other => other,
        }
    }

    /// Has an act applied: the act's bytes, the armored signatures over them and, for a grant to a
    /// release, the bundle. The answer is verified against `trust`, the ledger's proof included.
    ///
    /// # Errors
    /// What the broker refuses, and what is wrong with its answer.
    pub fn act(
        &self,
        trust: &Trust,
        act: &[u8],
        signatures: Vec<String>,
        bundle: Option<Vec<u8>>,
    ) -> Result<(ActAnswer, Change), ServiceError> {
        let request =
            ActRequest { act: Base64(act.to_vec()), signatures, bundle: bundle.map(Base64) };
        let answer: ActAnswer = self.http.post_json("/v1/act", &request)?;
        let change = self.check_act(trust, act, &answer)?;
        Ok((answer, change))
    }

    /// Who and in which state the broker is, signed for this question.
    ///
    /// # Errors
    /// If the broker is not the one that `trust` names, or does not answer.
    pub fn info(&self, trust: &Trust) -> Result<Info, ServiceError> {
        let nonce = question_nonce()?;
        let answer: Answer = self.http.get_json(&format!("/v1/info?nonce={nonce}"))?;
        let info: Info = answer.open(INFO_DOMAIN, &trust.broker.key, self.http.base())?;
        self.check_nonce(&nonce, &info.nonce)?;
        Ok(info)
    }

    /// The secrets and their grants, signed for this question.
    ///
    /// # Errors
    /// As [`Self::info`].
    pub fn list(&self, trust: &Trust) -> Result<List, ServiceError> {
        let nonce = question_nonce()?;
        let answer: Answer = self.http.get_json(&format!("/v1/list?nonce={nonce}"))?;
        let list: List = answer.open(LIST_DOMAIN, &trust.broker.key, self.http.base())?;
        self.check_nonce(&nonce, &list.nonce)?;
        Ok(list)
    }

    /// Whether the broker answers at all.
    ///
    /// # Errors
    /// If it does not.
    pub fn health(&self) -> Result<(), ServiceError> {
        self.http.get("/healthz").map(drop)
    }

    fn check_act(
        &self,
        trust: &Trust,
        act: &[u8],
        answer: &ActAnswer,
    ) -> Result<Change, ServiceError> {
        let key = PublicKey::from_spki_base64(&trust.broker.key).map_err(ServiceError::other)?;
        let log = trust
            .ledger
            .vkey
            .parse()
            .map_err(|e: casemate_tlog::TlogError| ServiceError::other(e))?;
        let payload = answer.statement.verify(&key).map_err(ServiceError::other)?;
        let record = HashedRekord::of_dsse(&answer.statement, &key).map_err(ServiceError::other)?;
        answer.receipt.verify_record(&log, &record).map_err(ServiceError::other)?;
        let statement = Statement::<Change>::parse(payload).map_err(ServiceError::other)?;
        let named =
            statement.subject.first().and_then(casemate_statement::intoto::Resource::sha256);
        if named != Some(Sha256::of(act)) {
            return Err(self.wrong("the receipt is for another act"));
        }
        Ok(statement.predicate)
    }

    fn check_nonce(&self, sent: &str, answered: &str) -> Result<(), ServiceError> {
        if sent == answered {
            return Ok(());
        }
        Err(self.wrong("the answer is to another question: it is an old one, played again"))
    }

    fn wrong(&self, problem: &str) -> ServiceError {
        ServiceError::Answer { url: self.http.base().into(), problem: problem.into() }
    }
}
