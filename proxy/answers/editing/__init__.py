"""The smallest edit of the policy files that would allow a denied call, as a diff.

Read `edit` first: candidates come from `change`, are made to the text by `layout`, and are offered only when they prove
themselves.
"""
