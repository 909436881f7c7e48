//! The signer's other end, for the command line.

use casemate_service::ServiceError;
use casemate_service::answer::{Answer, question_nonce};
use casemate_service::client::Http;
use casemate_spec::trust::Trust;
use casemate_statement::bundle::ReleaseBundle;

use crate::error::SignerError;
use crate::routes::Carried;
use crate::signer::{INFO_DOMAIN, Info};

/// Talks to a signer.
#[derive(Debug, Clone)]
pub struct Client {
    http: Http,
}

impl Client {
    /// The signer at `base` (`http://127.0.0.1:PORT`).
    pub fn new(base: &str) -> Self {
        Self { http: Http::new(base) }
    }

    /// Has a bundle signed. What comes back is the same bundle, completed; whether its signatures
    /// hold is for `casemate-verify` to say.
    ///
    /// # Errors
    /// What the signer refuses, or if the answer is another bundle.
    pub fn sign(&self, bundle: &ReleaseBundle) -> Result<ReleaseBundle, SignerError> {
        let carried: Carried = self.http.post_json("/v1/sign", &Carried::of(bundle)?)?;
        let signed = carried.open()?;
        if unsigned(&signed) != unsigned(bundle) || signed.release.is_none() {
            return Err(self.wrong("the answer is another bundle, or not signed").into());
        }
        Ok(signed)
    }

    /// Who the signer is, signed for this question.
    ///
    /// # Errors
    /// If the signer is not the one that `trust` names, or does not answer.
    pub fn info(&self, trust: &Trust) -> Result<Info, SignerError> {
        let nonce = question_nonce()?;
        let answer: Answer = self.http.get_json(&format!("/v1/info?nonce={nonce}"))?;
        let info: Info = answer.open(INFO_DOMAIN, &trust.signer.key, self.http.base())?;
        if info.nonce != nonce {
            let problem = "the answer is to another question: it is an old one, played again";
            return Err(self.wrong(problem).into());
        }
        Ok(info)
    }

    /// Whether the signer answers at all.
    ///
    /// # Errors
    /// If it does not.
    pub fn health(&self) -> Result<(), SignerError> {
        Ok(self.http.get("/healthz").map(drop)?)
    }

    fn wrong(&self, problem: &str) -> ServiceError {
        ServiceError::Answer { url: self.http.base().into(), problem: problem.into() }
    }
}

fn unsigned(bundle: &ReleaseBundle) -> ReleaseBundle {
    ReleaseBundle { release: None, signatures: Vec::new(), ..bundle.clone() }
}
