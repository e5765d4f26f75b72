"""The questions of the audit, as SQL on the ledger. Whatever one of them finds is a violation of its promise."""

from typing import Final

from fleet import MAX_ATTEMPTS

CLOCK_NS: Final = 1_000
"""Databases keep microseconds, the journal nanoseconds."""

LOST, TWICE, STUCK, UNEXPLAINED = "lost", "done twice after success", "stuck", "unexplained"

_UNPACKED: Final = "(SELECT content FROM jobs WHERE status IN ('completed', 'partial') OR members > 0)"
_REFUSED: Final = "(SELECT content FROM jobs WHERE status IN ('quarantined', 'failed') AND members = 0)"
_SHORT_NAME: Final = "(d.name || '.' || substr(d.content, 1, 12) || '.json')"

ABOUT_BATCHES: Final = [
    (
        LOST,
        "every archive becomes a batch",
        """
        SELECT DISTINCT d.name, d.content, c.verdict FROM drops d JOIN contents c USING (content)
        LEFT JOIN jobs j USING (content) WHERE d.fate = 'gone' AND j.content IS NULL
        """,
    ),
    (
        UNEXPLAINED,
        "there is no other batch",
        """
        SELECT j.* FROM jobs j LEFT JOIN contents c USING (content)
        WHERE c.content IS NULL OR c.verdict = 'unfit'
        """,
    ),
    (
        LOST,
        "what is to be taken is taken, and what is to be refused is refused for the right reason",
        """
        SELECT j.drop_name, j.content, j.status, j.reason, c.verdict, c.reason
        FROM jobs j JOIN contents c USING (content) LEFT JOIN died_unpacking USING (content)
        WHERE died_unpacking.content IS NULL AND NOT CASE c.verdict
            WHEN 'refused' THEN j.status = 'quarantined' AND j.reason = c.reason AND j.members = 0
            ELSE j.members = c.members AND j.members > 0 AND j.status <> 'quarantined' END
        """,
    ),
    (
        STUCK,
        "every batch is closed and reported",
        "SELECT * FROM jobs WHERE NOT reported OR status IN ('received', 'extracting', 'processing')",
    ),
    (
        UNEXPLAINED,
        "a batch ends as its files did",
        f"""
        SELECT j.drop_name, j.content, j.status, sum(r.status = 'success'), sum(r.status = 'failed')
        FROM jobs j JOIN rows r USING (content) WHERE j.content IN {_UNPACKED} AND j.reported
        GROUP BY j.content HAVING j.status <> CASE WHEN NOT sum(r.status = 'failed') THEN 'completed'
            WHEN sum(r.status = 'success') THEN 'partial' ELSE 'failed' END
        """,
    ),
]

ABOUT_MEMBERS: Final = [
    (
        LOST,
        "every member of a batch has its row",
        f"""
        SELECT m.doc_id, m.path, m.content FROM members m LEFT JOIN rows r USING (doc_id)
        WHERE r.doc_id IS NULL AND m.content IN {_UNPACKED}
        """,
    ),
    (
        UNEXPLAINED,
        "no row is of anything else",
        """
        SELECT r.doc_id, r.path, r.content FROM rows r LEFT JOIN members m USING (doc_id)
        WHERE m.doc_id IS NULL OR m.content <> r.content OR m.path <> r.path
        """,
    ),
    (
        STUCK,
        "every file comes to rest",
        """
        SELECT doc_id, path, status, attempts FROM rows
        WHERE status NOT IN ('success', 'failed', 'skipped') OR completed_ns IS NULL
        """,
    ),
    (
        UNEXPLAINED,
        "every file ends as its name demands",
        """
        SELECT r.doc_id, m.path, r.status, r.error, r.skip, r.attempts
        FROM members m JOIN rows r USING (doc_id) JOIN deeds d USING (does)
        LEFT JOIN exhausted e USING (doc_id)
        WHERE e.doc_id IS NULL AND r.status IN ('success', 'failed', 'skipped') AND (r.status <> d.status
            OR r.skip IS NOT CASE WHEN m.does = 'skip' THEN 'NOTHING_TO_DO' ELSE m.skip END
            OR (m.does = 'broken' AND r.error NOT IN ('PARSE_ERROR', 'RETRYABLE', 'TIMEOUT')))
        """,
    ),
    (
        LOST,
        "a row says what was in the archive",
        """
        SELECT r.doc_id, m.path, r.size, m.size, r.sha256, m.sha256 FROM members m JOIN rows r USING (doc_id)
        WHERE r.size <> m.size OR r.sha256 IS NOT m.sha256
        """,
    ),
    (
        LOST,
        "every file is on the disk with its content",
        """
        SELECT m.doc_id, r.file_path, p.file_path, p.sha256, m.sha256 FROM members m JOIN rows r USING (doc_id)
        LEFT JOIN published p USING (doc_id)
        WHERE m.skip IS NULL AND (p.file_path IS NOT r.file_path OR p.sha256 <> m.sha256)
        """,
    ),
    (
        UNEXPLAINED,
        "nothing else is on the disk",
        """
        SELECT p.file_path FROM published p LEFT JOIN rows r USING (doc_id) LEFT JOIN members m USING (doc_id)
        WHERE r.doc_id IS NULL OR m.doc_id IS NULL OR m.skip IS NOT NULL
        """,
    ),
]

ABOUT_CALLS: Final = [
    (
        TWICE,
        "no call begins after the file's success was recorded",
        f"""
        SELECT c.doc_id, r.path, 'attempt', c.attempt, c.process, 'begun', c.begun_ns, 'recorded', r.completed_ns,
            (SELECT group_concat(v.fault || ' ' || v.at_ns) FROM victims v
                WHERE v.process IN (c.process, substr(c.process, 1, instr(c.process, '/') - 1)))
        FROM calls c JOIN rows r USING (doc_id)
        WHERE r.status IN ('success', 'skipped') AND c.begun_ns > r.completed_ns + {CLOCK_NS}
        """,
    ),
    (
        UNEXPLAINED,
        "no call begins after the file failed for good",
        f"""
        SELECT c.doc_id, r.path, c.attempt, c.process, c.begun_ns, r.completed_ns
        FROM calls c JOIN rows r USING (doc_id)
        WHERE r.status = 'failed' AND c.begun_ns > r.completed_ns + {CLOCK_NS}
        """,
    ),
    (
        LOST,
        "a file that succeeded or was skipped by its handler had the call that its row counts",
        """
        SELECT r.doc_id, r.path, r.attempts FROM rows r JOIN members m USING (doc_id)
        WHERE m.skip IS NULL AND r.status IN ('success', 'skipped') AND NOT EXISTS (
            SELECT 1 FROM calls c WHERE c.doc_id = r.doc_id AND c.attempt = r.attempts
                AND c.how = CASE r.status WHEN 'success' THEN 'ok' ELSE 'skip' END)
        """,
    ),
    (
        UNEXPLAINED,
        "attempts are bounded, and numbered rightly",
        f"""
        SELECT c.doc_id, r.path, c.attempt, r.attempts, c.process FROM calls c LEFT JOIN rows r USING (doc_id)
        WHERE r.doc_id IS NULL OR c.attempt NOT BETWEEN 1 AND {MAX_ATTEMPTS} OR c.attempt > r.attempts
        """,
    ),
    (
        UNEXPLAINED,
        "a file that is called again had failed to end well: its process was harmed, or it asked for it",
        """
        WITH again AS (
            SELECT *, lead(begun_ns) OVER (PARTITION BY doc_id ORDER BY begun_ns) AS next_ns FROM calls
            WHERE doc_id IN (SELECT doc_id FROM calls GROUP BY doc_id HAVING count(*) > 1))
        SELECT a.doc_id, a.attempt, a.process, a.begun_ns, a.how, a.next_ns FROM again a
        WHERE a.next_ns IS NOT NULL AND a.ended_ns IS NOT NULL AND a.how <> 'RetryableError'
            AND NOT EXISTS (SELECT 1 FROM victims v
                WHERE v.process IN (a.process, substr(a.process, 1, instr(a.process, '/') - 1)))
            AND NOT EXISTS (SELECT 1 FROM calls d
                WHERE d.process = a.process AND d.ended_ns IS NULL AND d.begun_ns >= a.begun_ns)
        """,
    ),
    (
        UNEXPLAINED,
        "what failed for want of attempts had none left",
        f"""
        SELECT r.doc_id, r.path, r.attempts, r.error FROM rows r JOIN members m USING (doc_id)
        WHERE r.status = 'failed' AND r.error IN ('RETRYABLE', 'TIMEOUT') AND r.attempts <> {MAX_ATTEMPTS}
        """,
    ),
]

ABOUT_DROPS: Final = [
    (
        LOST,
        "every drop has a receipt that says what became of it",
        f"""
        SELECT DISTINCT d.name, d.content, j.status, t.state FROM drops d JOIN jobs j USING (content)
        LEFT JOIN receipts t ON t.file = {_SHORT_NAME}
        WHERE d.fate = 'gone' AND (t.state IS NULL OR t.drop_name <> d.name OR t.content <> d.content
            OR t.state NOT IN (j.status, CASE WHEN j.content IN {_REFUSED} THEN j.status ELSE 'duplicate' END))
        """,
    ),
    (
        LOST,
        "somebody's receipt of a content is the batch's own, unless the same name came again",
        f"""
        SELECT j.drop_name, j.content, j.status FROM jobs j
        WHERE j.content NOT IN {_REFUSED}
            AND (SELECT count(*) FROM drops d WHERE d.content = j.content AND d.name = j.drop_name) = 1
            AND NOT EXISTS (SELECT 1 FROM receipts t WHERE t.content = j.content AND t.state = j.status)
        """,
    ),
    (
        LOST,
        "a receipt's counts are those of its members",
        """
        SELECT t.file, t.state, t.members, t.files, t.skipped, t.succeeded, t.failed, t.unfinished, t.entries,
            n.members, n.skipped, n.succeeded, n.failed
        FROM receipts t JOIN (
            SELECT content, count(*) members, sum(status = 'skipped') skipped, sum(status = 'success') succeeded,
                sum(status = 'failed') failed
            FROM rows GROUP BY content) n USING (content)
        WHERE t.members <> n.members OR t.entries <> n.members OR t.files + t.skipped <> t.members
            OR t.succeeded + t.failed + t.unfinished <> t.files
            OR (t.state <> 'duplicate' AND (t.skipped <> n.skipped OR t.succeeded <> n.succeeded
                OR t.failed <> n.failed OR t.unfinished <> 0))
        """,
    ),
    (
        UNEXPLAINED,
        "no receipt is of anything else",
        f"""
        SELECT t.file, t.state FROM receipts t WHERE NOT EXISTS (
            SELECT 1 FROM drops d WHERE t.drop_name = d.name
                AND t.file = CASE WHEN d.fate = 'left' OR (d.fate = 'withdrawn' AND t.state = 'incomplete')
                    THEN d.name || '.json' ELSE {_SHORT_NAME} END)
        """,
    ),
    (
        LOST,
        "what is no archive has a receipt that says so",
        """
        SELECT d.name, c.reason FROM drops d JOIN contents c USING (content)
        LEFT JOIN receipts t ON t.file = d.name || '.json'
        WHERE d.fate = 'left' AND c.reason IS NOT NULL AND t.state IS NOT 'incomplete'
        """,
    ),
    (
        LOST,
        "every archive lies where it belongs, byte for byte",
        f"""
        SELECT DISTINCT d.name, d.content FROM drops d JOIN jobs j USING (content)
        WHERE d.fate = 'gone' AND NOT EXISTS (
            SELECT 1 FROM archives a WHERE a.sha256 = d.content
                AND a.folder = CASE WHEN j.content IN {_REFUSED} THEN 'quarantine' ELSE 'processed' END
                AND substr(a.name, 1, 6) = substr(d.name, 1, 6))
        """,
    ),
    (
        LOST,
        "what is to stay in the uploads stays, byte for byte",
        """
        SELECT d.name FROM drops d
        LEFT JOIN archives a ON a.folder = 'uploads' AND a.name = d.name AND a.sha256 = d.content
        WHERE d.fate = 'left' AND a.name IS NULL
        """,
    ),
    (
        STUCK,
        "nothing else is left in the uploads",
        """
        SELECT a.name FROM archives a LEFT JOIN drops d ON d.name = a.name AND d.fate = 'left'
        WHERE a.folder = 'uploads' AND d.name IS NULL
        """,
    ),
    (
        LOST,
        "a refused archive has its reason beside it",
        """
        SELECT a.name FROM archives a LEFT JOIN archives b
            ON b.folder = 'quarantine' AND b.name = a.name || '.reason.json'
        WHERE a.folder = 'quarantine' AND a.name NOT LIKE '%.reason.json' AND b.name IS NULL
        """,
    ),
    (
        UNEXPLAINED,
        "nothing else lies in processed/ or quarantine/",
        """
        SELECT a.folder, a.name, a.sha256 FROM archives a
        WHERE a.folder <> 'uploads' AND NOT EXISTS (SELECT 1 FROM drops d WHERE d.content = a.sha256)
            AND NOT (a.folder = 'quarantine' AND a.name LIKE '%.reason.json')
        """,
    ),
    (
        STUCK,
        "the dead leave nothing behind",
        "SELECT what, name FROM left_over",
    ),
]

QUESTIONS: Final = [*ABOUT_BATCHES, *ABOUT_MEMBERS, *ABOUT_CALLS, *ABOUT_DROPS]
