//! TLS, by rustls: with whom we talk.
//!
//! `sslmode=require` and everything stricter verifies the server's certificate, chain and name, which is stricter than
//! what libpq does. `prefer`, the default, encrypts when the server can, and trusts whoever answers, as libpq does: it
//! keeps nobody out who sits in between, so a database on another machine deserves `require`.

use std::sync::Arc;

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{self, CryptoProvider},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::super::StoreError;

/// How connections are encrypted, if they are.
#[derive(Clone)]
pub(super) struct Connector(Option<MakeRustlsConnect>);

impl Connector {
    pub(super) const fn none() -> Self {
        Self(None)
    }

    /// Encrypts, and takes any certificate.
    pub(super) fn encrypting() -> Result<Self, StoreError> {
        let provider = Arc::new(crypto::ring::default_provider());
        let verifier = Arc::new(Anybody(Arc::clone(&provider)));
        let config = builder(provider)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        Ok(Self(Some(MakeRustlsConnect::new(config))))
    }

    /// Encrypts, and takes a certificate that is the host's, signed by one of the authorities in the file
    /// `root_certificates` or, without one, by one that the system trusts.
    pub(super) fn verifying(root_certificates: Option<&str>) -> Result<Self, StoreError> {
        let mut roots = RootCertStore::empty();
        match root_certificates {
            None | Some("system") => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
            Some(path) => {
                let unreadable = |error: &dyn std::fmt::Display| {
                    StoreError::rejected(format_args!(
                        "the certificates in `{path}` (`sslrootcert`) can't be read ({error}): give a PEM file"
                    ))
                };
                let certificates = CertificateDer::pem_file_iter(path).map_err(|error| unreadable(&error))?;
                for certificate in certificates {
                    let certificate = certificate.map_err(|error| unreadable(&error))?;
                    roots.add(certificate).map_err(|error| unreadable(&error))?;
                }
            }
        }
        if roots.is_empty() {
            return Err(StoreError::rejected(
                "TLS is required, but there is no certificate of an authority to trust: name a PEM file with \
                 `sslrootcert` in the database's URL",
            ));
        }
        let config = builder(Arc::new(crypto::ring::default_provider()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(Some(MakeRustlsConnect::new(config))))
    }

    pub(super) fn into_inner(self) -> Option<MakeRustlsConnect> {
        self.0
    }
}

fn builder(
    provider: Arc<CryptoProvider>,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, StoreError> {
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| StoreError::rejected(format_args!("TLS can't be set up ({error})")))
}

/// Trusts whoever answers.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        crypto::verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        crypto::verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
