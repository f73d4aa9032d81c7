"""Every data access object, made once."""

from commserver.dao.accounts import AccountDAO
from commserver.dao.announcements import AnnouncementDAO
from commserver.dao.attempt_logs import AttemptLogDAO
from commserver.dao.attempts import AttemptDAO
from commserver.dao.audit import AuditDAO
from commserver.dao.baseline import BaselineDAO
from commserver.dao.codes import CodeDAO
from commserver.dao.courses import CourseDAO
from commserver.dao.executions import ExecutionDAO
from commserver.dao.exercises import ExerciseDAO
from commserver.dao.grades import GradeDAO
from commserver.dao.housekeeping import HousekeepingDAO
from commserver.dao.languages import LanguageDAO
from commserver.dao.leases import LeaseDAO
from commserver.dao.notices import NoticeDAO
from commserver.dao.requests import RequestDAO
from commserver.dao.scripts import ScriptDAO
from commserver.dao.site import SiteDAO
from commserver.dao.tokens import TokenDAO


class DaoManager:
    """One data access object a table, by the table's name in our words."""

    def __init__(self) -> None:
        # The platform's.
        self.accounts = AccountDAO()
        self.languages = LanguageDAO()
        self.courses = CourseDAO()
        self.exercises = ExerciseDAO()
        self.attempts = AttemptDAO()
        self.codes = CodeDAO()
        self.scripts = ScriptDAO()
        self.grades = GradeDAO()
        self.attempt_logs = AttemptLogDAO()
        # Ours.
        self.executions = ExecutionDAO()
        self.leases = LeaseDAO()
        self.notices = NoticeDAO()
        self.baseline = BaselineDAO()
        self.tokens = TokenDAO()
        self.site = SiteDAO()
        self.requests = RequestDAO()
        self.audit = AuditDAO()
        self.announcements = AnnouncementDAO()
        # Several at once.
        self.housekeeping = HousekeepingDAO()
