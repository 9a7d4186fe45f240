"""Who speaks. Three kinds of keys, one certificate authority a consortium, and the invitation that brings a new member in.

    keys           Ed25519 signs statements, P-256 speaks TLS, X25519 receives sealed secrets; private files, mode 0600
    certificates   names in certificates, validity, what a certificate and an enrolment are checked by
    authority      issues certificates and writes every name in them itself
    invitation     what an operator hands to an institution: where, which secret, and the trust root to expect there

No module here reads the roster: who may speak now is the ledger's to say.
"""
