//! The page of the documentation that says who may connect: its manifests and the code that it gives to browsers, for
//! tests to run as they stand there.

/// One section of `docs/authentication.md`.
pub struct Section {
    /// The route.
    pub manifest: String,
    /// What a page does, one way each.
    pub code: Vec<String>,
    /// Lines of HTTP that the application sends.
    pub http: Vec<String>,
}

impl Section {
    /// The section under a heading, which has one manifest and code for browsers.
    pub fn of(heading: &str) -> Self {
        let page = include_str!("../../docs/authentication.md");
        let section = page.split("\n## ").find(|section| section.starts_with(&format!("{heading}\n")));
        let section = section.unwrap_or_else(|| panic!("docs/authentication.md has no section {heading}"));
        let mut manifests = blocks(section, "yaml");
        assert_eq!(manifests.len(), 1, "{heading}: one manifest");
        let code = blocks(section, "js");
        assert!(!code.is_empty(), "{heading}: no code for browsers");
        Self { manifest: manifests.remove(0), code, http: blocks(section, "http") }
    }

    /// The route with the ports of the test: that of the page, and that of the issuer, who is at an address here.
    pub fn route(&self, page: u16, issuer: u16) -> String {
        self.manifest
            .replace("https://app.example.com", &format!("https://app.example.com:{page}"))
            .replace("https://idp.example.com/jwks", &format!("https://127.0.0.1:{issuer}/jwks"))
    }

    /// The code of a way with the port of the gateway.
    pub fn code(&self, way: usize, gateway: u16) -> String {
        let code = self.code[way].replace("://chat.example.com/", &format!("://chat.example.com:{gateway}/"));
        assert_ne!(code, self.code[way], "the code names no gateway");
        code
    }
}

/// The fenced blocks of a language.
fn blocks(section: &str, language: &str) -> Vec<String> {
    let open = format!("```{language}\n");
    section.split(open.as_str()).skip(1).filter_map(|rest| rest.split("```").next()).map(str::to_owned).collect()
}
