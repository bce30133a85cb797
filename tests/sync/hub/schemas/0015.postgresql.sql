CREATE TABLE enrolment_tokens (
	token_hash BYTEA NOT NULL,
	device VARCHAR(64) NOT NULL,
	clinic VARCHAR(200) NOT NULL,
	created_by VARCHAR(100) NOT NULL,
	created_ms BIGINT NOT NULL,
	expires_ms BIGINT NOT NULL,
	used_by BYTEA,
	used_ms BIGINT,
	PRIMARY KEY (token_hash)
);

CREATE TABLE workers (
	name VARCHAR(64) NOT NULL,
	beat BIGINT NOT NULL,
	PRIMARY KEY (name)
);

CREATE TABLE update_halts (
	name VARCHAR(32) NOT NULL,
	version VARCHAR(32) NOT NULL,
	halted_ms BIGINT NOT NULL,
	why VARCHAR(300) NOT NULL,
	by VARCHAR(100) NOT NULL,
	lifted_ms BIGINT,
	PRIMARY KEY (name, version)
);

CREATE TABLE delivery_bodies (
	sha256 VARCHAR(64) NOT NULL,
	number INTEGER NOT NULL,
	data BYTEA NOT NULL,
	PRIMARY KEY (sha256, number)
);

CREATE TABLE device_settings (
	scope VARCHAR(16) NOT NULL,
	name VARCHAR(200) NOT NULL,
	key VARCHAR(100) NOT NULL,
	value TEXT NOT NULL,
	by VARCHAR(64) NOT NULL,
	at_ms BIGINT NOT NULL,
	PRIMARY KEY (scope, name, key)
);

CREATE TABLE index_due (
	patient UUID NOT NULL,
	PRIMARY KEY (patient)
);

CREATE TABLE rule_changes (
	id UUID NOT NULL,
	name VARCHAR(64) NOT NULL,
	text TEXT NOT NULL,
	why VARCHAR(500) NOT NULL,
	proposed_ms BIGINT NOT NULL,
	proposed_by VARCHAR(64) NOT NULL,
	state VARCHAR(16) NOT NULL,
	PRIMARY KEY (id)
);

CREATE TABLE audit (
	id BIGINT NOT NULL,
	at_ms BIGINT NOT NULL,
	actor VARCHAR(100) NOT NULL,
	action VARCHAR(64) NOT NULL,
	target VARCHAR(200) NOT NULL,
	detail VARCHAR(1000) NOT NULL,
	hash BYTEA NOT NULL,
	PRIMARY KEY (id)
);

CREATE INDEX audit_time ON audit (at_ms);

CREATE TABLE users (
	name VARCHAR(64) NOT NULL,
	full_name VARCHAR(200) NOT NULL,
	role VARCHAR(16) NOT NULL,
	password VARCHAR(200) NOT NULL,
	created_ms BIGINT NOT NULL,
	disabled_ms BIGINT,
	issuer VARCHAR(500),
	subject VARCHAR(255),
	PRIMARY KEY (name)
);

CREATE UNIQUE INDEX users_subject ON users (issuer, subject);

CREATE TABLE logout_tokens (
	token_hash BYTEA NOT NULL,
	until_ms BIGINT NOT NULL,
	PRIMARY KEY (token_hash)
);

CREATE TABLE patient_words (
	word VARCHAR(64) COLLATE "C" NOT NULL,
	patient UUID NOT NULL,
	PRIMARY KEY (word, patient)
);

CREATE INDEX ix_patient_words_patient ON patient_words (patient);

CREATE TABLE withdrawn_consents (
	id UUID NOT NULL,
	patient UUID NOT NULL,
	purpose VARCHAR(32) NOT NULL,
	reason VARCHAR(500) NOT NULL,
	at_ms BIGINT NOT NULL,
	by VARCHAR(64) NOT NULL,
	PRIMARY KEY (id)
);

CREATE INDEX ix_withdrawn_consents_patient ON withdrawn_consents (patient);

CREATE TABLE patient_links (
	id UUID NOT NULL,
	patient UUID NOT NULL,
	same_as UUID NOT NULL,
	reason VARCHAR(500) NOT NULL,
	at_ms BIGINT NOT NULL,
	by VARCHAR(64) NOT NULL,
	parted_ms BIGINT,
	parted_by VARCHAR(64) NOT NULL,
	PRIMARY KEY (id)
);

CREATE INDEX ix_patient_links_patient ON patient_links (patient);

CREATE INDEX ix_patient_links_same_as ON patient_links (same_as);

CREATE TABLE withdrawals (
	id UUID NOT NULL,
	exam UUID NOT NULL,
	patient UUID NOT NULL,
	right_patient UUID,
	reason VARCHAR(500) NOT NULL,
	at_ms BIGINT NOT NULL,
	by VARCHAR(64) NOT NULL,
	undone_ms BIGINT,
	undone_by VARCHAR(64) NOT NULL,
	PRIMARY KEY (id)
);

CREATE INDEX ix_withdrawals_exam ON withdrawals (exam);

CREATE INDEX ix_withdrawals_patient ON withdrawals (patient);

CREATE INDEX ix_withdrawals_right_patient ON withdrawals (right_patient);

CREATE TABLE quality_due (
	id BIGSERIAL NOT NULL,
	exam UUID,
	patient UUID,
	PRIMARY KEY (id)
);

CREATE TABLE quality_facts (
	subject UUID NOT NULL,
	body BYTEA NOT NULL,
	PRIMARY KEY (subject)
);

CREATE TABLE quality_counts (
	clinic VARCHAR(201) NOT NULL,
	what VARCHAR(32) NOT NULL,
	name VARCHAR(200) NOT NULL,
	bucket BIGINT NOT NULL,
	number BIGINT NOT NULL,
	PRIMARY KEY (clinic, what, name, bucket)
);

CREATE TABLE reviews (
	id UUID NOT NULL,
	exam UUID NOT NULL,
	report UUID NOT NULL,
	patient UUID NOT NULL,
	reviewer VARCHAR(64) NOT NULL,
	decision VARCHAR(16) NOT NULL,
	triage INTEGER,
	dr_referable BOOLEAN,
	af BOOLEAN,
	at_ms BIGINT NOT NULL,
	body BYTEA NOT NULL,
	PRIMARY KEY (id)
);

CREATE INDEX ix_reviews_exam ON reviews (exam);

CREATE TABLE referrals (
	id UUID NOT NULL,
	exam UUID NOT NULL,
	patient UUID NOT NULL,
	status VARCHAR(16) NOT NULL,
	due VARCHAR(10) NOT NULL,
	supersedes UUID,
	current BOOLEAN NOT NULL,
	at_ms BIGINT NOT NULL,
	entered_by VARCHAR(100) NOT NULL,
	body BYTEA NOT NULL,
	PRIMARY KEY (id)
);

CREATE INDEX ix_referrals_exam ON referrals (exam);

CREATE INDEX referrals_due ON referrals (current, status, due);

CREATE TABLE readings (
	report UUID NOT NULL,
	part VARCHAR(16) NOT NULL,
	number INTEGER NOT NULL,
	exam UUID NOT NULL,
	patient UUID NOT NULL,
	review UUID NOT NULL,
	reader VARCHAR(64) NOT NULL,
	state VARCHAR(16) NOT NULL,
	call BOOLEAN,
	triage INTEGER,
	at_ms BIGINT NOT NULL,
	opened_ms BIGINT,
	PRIMARY KEY (report, part, number)
);

CREATE INDEX ix_readings_patient ON readings (patient);

CREATE INDEX readings_time ON readings (at_ms);

CREATE TABLE calls (
	report UUID NOT NULL,
	task VARCHAR(16) NOT NULL,
	exam UUID NOT NULL,
	patient UUID NOT NULL,
	model VARCHAR(200) NOT NULL,
	camera VARCHAR(200) NOT NULL,
	call BOOLEAN,
	score FLOAT,
	quality FLOAT,
	usable BOOLEAN NOT NULL,
	at_ms BIGINT NOT NULL,
	PRIMARY KEY (report, task)
);

CREATE INDEX calls_time ON calls (task, at_ms);

CREATE INDEX ix_calls_patient ON calls (patient);

CREATE TABLE leases (
	exam UUID NOT NULL,
	part VARCHAR(16) NOT NULL,
	reader VARCHAR(64) NOT NULL,
	since_ms BIGINT NOT NULL,
	until_ms BIGINT NOT NULL,
	PRIMARY KEY (exam, part)
);

CREATE TABLE alerts (
	id UUID NOT NULL,
	kind VARCHAR(16) NOT NULL,
	about UUID NOT NULL,
	exam UUID NOT NULL,
	patient UUID NOT NULL,
	device VARCHAR(64) NOT NULL,
	clinic VARCHAR(200) NOT NULL,
	triage INTEGER NOT NULL,
	opened_ms BIGINT NOT NULL,
	level INTEGER NOT NULL,
	next_ms BIGINT,
	acknowledged_ms BIGINT,
	acknowledged_by VARCHAR(200) NOT NULL,
	PRIMARY KEY (id),
	UNIQUE (about)
);

CREATE INDEX alerts_due ON alerts (next_ms);

CREATE INDEX ix_alerts_exam ON alerts (exam);

CREATE INDEX ix_alerts_patient ON alerts (patient);

CREATE TABLE exports (
	exam UUID NOT NULL,
	target VARCHAR(16) NOT NULL,
	patient UUID NOT NULL,
	change INTEGER NOT NULL,
	attempts INTEGER NOT NULL,
	next_ms BIGINT,
	sent_ms BIGINT,
	error VARCHAR(500) NOT NULL,
	PRIMARY KEY (exam, target)
);

CREATE INDEX exports_due ON exports (target, next_ms);

CREATE INDEX ix_exports_patient ON exports (patient);

CREATE TABLE dicom_objects (
	id UUID NOT NULL,
	exam UUID NOT NULL,
	patient UUID NOT NULL,
	at_ms BIGINT NOT NULL,
	fault VARCHAR(500) NOT NULL,
	PRIMARY KEY (id)
);

CREATE INDEX ix_dicom_objects_exam ON dicom_objects (exam);

CREATE INDEX ix_dicom_objects_patient ON dicom_objects (patient);

CREATE TABLE hub (
	id SERIAL NOT NULL,
	schema_version INTEGER NOT NULL,
	epoch BYTEA NOT NULL,
	created_ms BIGINT NOT NULL,
	tally BIGINT DEFAULT '0' NOT NULL,
	tallied_ms BIGINT,
	PRIMARY KEY (id)
);

CREATE TABLE devices (
	name VARCHAR(64) NOT NULL,
	public_key BYTEA NOT NULL,
	clinic VARCHAR(200) NOT NULL,
	accept_simulated BOOLEAN,
	enrolled_ms BIGINT NOT NULL,
	revoked_ms BIGINT,
	seen_ms BIGINT,
	software VARCHAR(64) NOT NULL,
	online BOOLEAN NOT NULL,
	queued INTEGER NOT NULL,
	oldest_s BIGINT NOT NULL,
	dead_letters INTEGER NOT NULL,
	clock_synced BOOLEAN,
	clock_error_ms BIGINT,
	previous_key BYTEA,
	previous_until_ms BIGINT,
	PRIMARY KEY (name)
);

CREATE TABLE tombstones (
	patient UUID NOT NULL,
	device VARCHAR(64) NOT NULL,
	received_ms BIGINT NOT NULL,
	PRIMARY KEY (patient)
);

CREATE TABLE reports (
	id UUID NOT NULL,
	exam UUID NOT NULL,
	patient UUID NOT NULL,
	device VARCHAR(64) NOT NULL,
	stream BIGINT NOT NULL,
	seq BIGINT NOT NULL,
	supersedes UUID,
	PRIMARY KEY (id)
);

CREATE INDEX ix_reports_exam ON reports (exam);

CREATE INDEX ix_reports_patient ON reports (patient);

CREATE INDEX ix_reports_supersedes ON reports (supersedes);

CREATE TABLE exams (
	id UUID NOT NULL,
	report UUID NOT NULL,
	patient UUID NOT NULL,
	device VARCHAR(64) NOT NULL,
	clinic VARCHAR(200) NOT NULL,
	operator VARCHAR(200) NOT NULL,
	patient_name VARCHAR(500) NOT NULL,
	birth_date VARCHAR(10),
	sex VARCHAR(16) NOT NULL,
	triage INTEGER NOT NULL,
	computed_triage INTEGER,
	origin VARCHAR(16) NOT NULL,
	summary TEXT NOT NULL,
	dr_grade INTEGER,
	dr_referable BOOLEAN,
	af BOOLEAN,
	sampled BOOLEAN NOT NULL,
	abstained BOOLEAN NOT NULL,
	ungradable BOOLEAN NOT NULL,
	modalities VARCHAR(64) NOT NULL,
	started_ms BIGINT NOT NULL,
	time_basis VARCHAR(16) NOT NULL,
	device_wall_ms BIGINT NOT NULL,
	device_monotonic_ms BIGINT NOT NULL,
	device_boot BIGINT NOT NULL,
	device_synced BOOLEAN NOT NULL,
	received_ms BIGINT NOT NULL,
	state VARCHAR(16) NOT NULL,
	waits VARCHAR(32) NOT NULL,
	PRIMARY KEY (id)
);

CREATE INDEX exams_boot ON exams (device, device_boot);

CREATE INDEX exams_done ON exams (state, started_ms DESC, id);

CREATE INDEX exams_newest ON exams (started_ms DESC, id);

CREATE INDEX exams_patient ON exams (patient, started_ms);

CREATE INDEX exams_worklist ON exams (state, triage DESC, started_ms, id, waits, clinic);

CREATE TABLE vitals (
	id UUID NOT NULL,
	exam UUID,
	patient UUID,
	kind VARCHAR(32) NOT NULL,
	value FLOAT,
	unit VARCHAR(32) NOT NULL,
	origin VARCHAR(16) NOT NULL,
	at_ms BIGINT NOT NULL,
	stream BIGINT NOT NULL,
	seq BIGINT NOT NULL,
	PRIMARY KEY (id)
);

CREATE INDEX ix_vitals_exam ON vitals (exam);

CREATE INDEX vitals_patient ON vitals (patient, kind, at_ms);

CREATE TABLE blobs (
	sha256 VARCHAR(64) NOT NULL,
	size BIGINT NOT NULL,
	completed_ms BIGINT NOT NULL,
	PRIMARY KEY (sha256)
);

CREATE TABLE partials (
	device VARCHAR(64) NOT NULL,
	sha256 VARCHAR(64) NOT NULL,
	size BIGINT NOT NULL,
	ranges BYTEA NOT NULL,
	refused VARCHAR(500) NOT NULL,
	updated_ms BIGINT NOT NULL,
	PRIMARY KEY (device, sha256)
);

CREATE TABLE anchors (
	device VARCHAR(64) NOT NULL,
	boot BIGINT NOT NULL,
	boot_began_ms BIGINT NOT NULL,
	first_ms BIGINT NOT NULL,
	last_ms BIGINT NOT NULL,
	PRIMARY KEY (device, boot)
);

CREATE TABLE rounds (
	id UUID NOT NULL,
	number INTEGER NOT NULL,
	model VARCHAR(64) NOT NULL,
	base VARCHAR(64) NOT NULL,
	previous UUID,
	state VARCHAR(16) NOT NULL,
	phase VARCHAR(16) NOT NULL,
	until_ms BIGINT NOT NULL,
	phase_ms BIGINT NOT NULL,
	call BYTEA NOT NULL,
	opened_ms BIGINT NOT NULL,
	opened_by VARCHAR(64) NOT NULL,
	ended_ms BIGINT,
	answers INTEGER NOT NULL,
	head BYTEA,
	memory BYTEA,
	reason VARCHAR(500) NOT NULL,
	candidate VARCHAR(16) NOT NULL,
	verdict TEXT NOT NULL,
	PRIMARY KEY (id)
);

CREATE INDEX rounds_model ON rounds (model, number);

CREATE TABLE outgoing (
	device VARCHAR(64) NOT NULL,
	cls VARCHAR(32) NOT NULL,
	epoch BYTEA NOT NULL,
	seq BIGINT NOT NULL,
	kind VARCHAR(64) NOT NULL,
	patient UUID,
	exam UUID,
	body BYTEA NOT NULL,
	created_ms BIGINT NOT NULL,
	sent_ms BIGINT,
	attempts INTEGER NOT NULL,
	received_ms BIGINT,
	refused VARCHAR(500) NOT NULL,
	PRIMARY KEY (device, cls, epoch, seq),
	FOREIGN KEY(device) REFERENCES devices (name)
);

CREATE INDEX ix_outgoing_patient ON outgoing (patient);

CREATE INDEX outgoing_waiting ON outgoing (received_ms, sent_ms);

CREATE TABLE certificates (
	serial VARCHAR(40) NOT NULL,
	device VARCHAR(64) NOT NULL,
	key_hash BYTEA NOT NULL,
	issued_ms BIGINT NOT NULL,
	not_after_ms BIGINT NOT NULL,
	revoked_ms BIGINT,
	PRIMARY KEY (serial),
	FOREIGN KEY(device) REFERENCES devices (name)
);

CREATE INDEX ix_certificates_device ON certificates (device);

CREATE TABLE device_updates (
	device VARCHAR(64) NOT NULL,
	name VARCHAR(32) NOT NULL,
	version VARCHAR(32) NOT NULL,
	state VARCHAR(16) NOT NULL,
	why VARCHAR(300) NOT NULL,
	since_ms BIGINT NOT NULL,
	PRIMARY KEY (device, name, version),
	FOREIGN KEY(device) REFERENCES devices (name)
);

CREATE INDEX device_updates_version ON device_updates (name, version);

CREATE TABLE deliveries (
	id UUID NOT NULL,
	device VARCHAR(64) NOT NULL,
	subject VARCHAR(32) NOT NULL,
	epoch BYTEA NOT NULL,
	seq BIGINT NOT NULL,
	serial BIGINT NOT NULL,
	version VARCHAR(64) NOT NULL,
	sha256 VARCHAR(64),
	size BIGINT NOT NULL,
	held_bytes BIGINT NOT NULL,
	state VARCHAR(16) NOT NULL,
	why VARCHAR(500) NOT NULL,
	by VARCHAR(100) NOT NULL,
	created_ms BIGINT NOT NULL,
	state_ms BIGINT NOT NULL,
	PRIMARY KEY (id),
	FOREIGN KEY(device) REFERENCES devices (name)
);

CREATE INDEX deliveries_body ON deliveries (sha256);

CREATE INDEX deliveries_device ON deliveries (device, subject, serial);

CREATE TABLE index_entries (
	device VARCHAR(64) NOT NULL,
	patient UUID NOT NULL,
	digest BYTEA NOT NULL,
	PRIMARY KEY (device, patient),
	FOREIGN KEY(device) REFERENCES devices (name)
);

CREATE INDEX ix_index_entries_patient ON index_entries (patient);

CREATE TABLE rule_signatures (
	change UUID NOT NULL,
	role VARCHAR(16) NOT NULL,
	"user" VARCHAR(64) NOT NULL,
	full_name VARCHAR(200) NOT NULL,
	at_ms BIGINT NOT NULL,
	PRIMARY KEY (change, role),
	FOREIGN KEY(change) REFERENCES rule_changes (id)
);

CREATE TABLE sessions (
	token_hash BYTEA NOT NULL,
	"user" VARCHAR(64) NOT NULL,
	csrf VARCHAR(64) NOT NULL,
	created_ms BIGINT NOT NULL,
	used_ms BIGINT NOT NULL,
	issuer VARCHAR(500),
	sid VARCHAR(255),
	PRIMARY KEY (token_hash),
	FOREIGN KEY("user") REFERENCES users (name)
);

CREATE TABLE user_scopes (
	"user" VARCHAR(64) NOT NULL,
	kind VARCHAR(16) NOT NULL,
	value VARCHAR(200) NOT NULL,
	PRIMARY KEY ("user", kind, value),
	FOREIGN KEY("user") REFERENCES users (name)
);

CREATE TABLE second_factors (
	"user" VARCHAR(64) NOT NULL,
	secret BYTEA NOT NULL,
	confirmed_ms BIGINT,
	last_step BIGINT NOT NULL,
	PRIMARY KEY ("user"),
	FOREIGN KEY("user") REFERENCES users (name)
);

CREATE TABLE alert_steps (
	alert UUID NOT NULL,
	number INTEGER NOT NULL,
	at_ms BIGINT NOT NULL,
	step VARCHAR(16) NOT NULL,
	target VARCHAR(300) NOT NULL,
	detail VARCHAR(500) NOT NULL,
	PRIMARY KEY (alert, number),
	FOREIGN KEY(alert) REFERENCES alerts (id)
);

CREATE TABLE streams (
	id BIGSERIAL NOT NULL,
	device VARCHAR(64) NOT NULL,
	epoch BYTEA NOT NULL,
	cls VARCHAR(32) NOT NULL,
	held BYTEA NOT NULL,
	dropped BYTEA NOT NULL,
	rejected BYTEA NOT NULL,
	PRIMARY KEY (id),
	UNIQUE (device, epoch, cls),
	FOREIGN KEY(device) REFERENCES devices (name)
);

CREATE TABLE round_devices (
	round UUID NOT NULL,
	device VARCHAR(64) NOT NULL,
	PRIMARY KEY (round, device),
	FOREIGN KEY(round) REFERENCES rounds (id),
	FOREIGN KEY(device) REFERENCES devices (name)
);

CREATE TABLE round_records (
	round UUID NOT NULL,
	device VARCHAR(64) NOT NULL,
	kind VARCHAR(32) NOT NULL,
	body BYTEA NOT NULL,
	received_ms BIGINT NOT NULL,
	refused VARCHAR(300) NOT NULL,
	counted UUID,
	PRIMARY KEY (round, device, kind),
	FOREIGN KEY(round) REFERENCES rounds (id),
	FOREIGN KEY(device) REFERENCES devices (name)
);

CREATE TABLE envelopes (
	stream BIGINT NOT NULL,
	seq BIGINT NOT NULL,
	hash BYTEA NOT NULL,
	kind VARCHAR(64) NOT NULL,
	patient UUID,
	exam UUID,
	origin VARCHAR(16),
	body BYTEA NOT NULL,
	received_ms BIGINT NOT NULL,
	PRIMARY KEY (stream, seq),
	FOREIGN KEY(stream) REFERENCES streams (id)
);

CREATE INDEX envelopes_exam ON envelopes (exam);

CREATE INDEX envelopes_patient ON envelopes (patient);

CREATE TABLE conflicts (
	stream BIGINT NOT NULL,
	seq BIGINT NOT NULL,
	hash BYTEA NOT NULL,
	kind VARCHAR(64) NOT NULL,
	patient UUID,
	exam UUID,
	body BYTEA NOT NULL,
	received_ms BIGINT NOT NULL,
	PRIMARY KEY (stream, seq, hash),
	FOREIGN KEY(stream) REFERENCES streams (id)
);

CREATE INDEX ix_conflicts_patient ON conflicts (patient);

CREATE TABLE rejects (
	stream BIGINT NOT NULL,
	seq BIGINT NOT NULL,
	hash BYTEA NOT NULL,
	code VARCHAR(32) NOT NULL,
	reason VARCHAR(500) NOT NULL,
	received_ms BIGINT NOT NULL,
	PRIMARY KEY (stream, seq, hash),
	FOREIGN KEY(stream) REFERENCES streams (id)
);

CREATE TABLE manifests (
	stream BIGINT NOT NULL,
	seq BIGINT NOT NULL,
	device VARCHAR(64) NOT NULL,
	sha256 VARCHAR(64) NOT NULL,
	size BIGINT NOT NULL,
	media_type VARCHAR(100) NOT NULL,
	patient UUID,
	exam UUID,
	preview BYTEA NOT NULL,
	waiting BOOLEAN NOT NULL,
	PRIMARY KEY (stream, seq),
	FOREIGN KEY(stream) REFERENCES streams (id)
);

CREATE INDEX ix_manifests_patient ON manifests (patient);

CREATE INDEX ix_manifests_sha256 ON manifests (sha256);

CREATE INDEX manifests_waiting ON manifests (device) WHERE waiting;

