"""A store that machines share through a bucket (`s3://`): what is finished goes there, and comes back when wanted."""
