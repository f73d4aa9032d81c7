from commserver.dao import migrations

migrations.run(migrations.COMMSERVER)
