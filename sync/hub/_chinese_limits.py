"""The page of clinical limits in simplified Chinese, with the golden cases (`inference/golden_rules.toml`)."""

from __future__ import annotations

LIMITS = {
    "Clinical limits": "临床界值",
    "A clinician and an administrator sign a change of limits; a device takes it if the golden cases hold.": (
        "临床界值的更改须由一名医生和一名管理员签名；设备仅在全部基准病例通过时采用。"
    ),
    "All golden cases hold:": "全部基准病例通过：",
    "All limits that the clinic sets; what is not named is as published": "该诊所设定的全部界值；未列出者按发布值",
    "As published": "发布值",
    "as published": "按发布值",
    "Before": "此前",
    "Code from your app": "应用中的验证码",
    "It is no longer open.": "该更改已不再待签。",
    "It waits for the signature of somebody else, in the other role.": "等待另一角色的另一人签名。",
    "Limit": "界值",
    "Limits": "界值",
    "Nothing waits for a signature.": "没有待签名的更改。",
    "Nothing: all limits are as published.": "无：全部界值均为发布值。",
    "Propose": "提议",
    "Propose other limits": "提议其他界值",
    "Proposed": "提议值",
    "Proposed by": "提议人",
    "Serves": "生效中",
    "Sign": "签名",
    "Signed by": "签名人",
    "Take the proposal back": "撤回该提议",
    "The golden cases cannot be run on this hub. Sign with: aidpost hub rules sign": (
        "本中心无法运行基准病例。请用命令签名：aidpost hub rules sign"
    ),
    "These limits break a golden case. They cannot be signed.": "这些界值未通过基准病例，不能签名。",
    "To sign, log in with a password: a login provider's word is no signature.": (
        "签名须以密码登录：登录服务商的确认不能作为签名。"
    ),
    "What differs from what serves": "与当前生效值的差异",
    "Why": "理由",
    "Why, for those who sign": "理由（供签名人阅读）",
    "You sign as": "您的签名身份：",
    "Your password, again": "再次输入您的密码",
    "replaced": "已被取代",
    "to be signed by you": "待您签名",
    "unchanged": "不变",
    "Something else has come to serve since. Look at the difference again.": "生效值已变更。请重新查看差异。",
    "Password or code is wrong.": "密码或验证码错误。",
    "You cannot sign this now: it is signed in your role, or no longer open.": (
        "您现在不能签名：您的角色已签名，或该更改已不再待签。"
    ),
    "There is no such change.": "没有这项更改。",
    "a healthy adult's vital signs alarm nobody": "健康成人的生命体征不触发警报",
    "a pressure of 230/140 is urgent": "血压 230/140 为紧急",
    "a pressure of 210/135 with a symptom of an organ is an emergency": "血压 210/135 伴器官症状为危急",
    "a systolic pressure of 70 is urgent": "收缩压 70 为紧急",
    "a pressure of 165/105 is not passed over": "血压 165/105 不被忽略",
    "a saturation of 80 % is an emergency": "血氧饱和度 80% 为危急",
    "a saturation of 84 % is urgent": "血氧饱和度 84% 为紧急",
    "a glucose of 2.2 mmol/L is an emergency": "血糖 2.2 mmol/L 为危急",
    "a glucose of 3.4 mmol/L is urgent": "血糖 3.4 mmol/L 为紧急",
    "a glucose of 45 mmol/L is an emergency": "血糖 45 mmol/L 为危急",
    "a fasting glucose of 9 mmol/L is not passed over": "空腹血糖 9 mmol/L 不被忽略",
    "a temperature of 42 degrees is an emergency": "体温 42 度为危急",
    "a temperature of 31 degrees is an emergency": "体温 31 度为危急",
    "a temperature of 39 degrees is not passed over": "体温 39 度不被忽略",
    "sinus rhythm with usual intervals alarms nobody": "间期正常的窦性心律不触发警报",
    "a wide tachycardia of 200 is an emergency": "200 次/分的宽 QRS 心动过速为危急",
    "a ventricular tachycardia of a minute is an emergency": "持续一分钟的室性心动过速为危急",
    "fast atrial fibrillation is urgent": "快速心房颤动为紧急",
    "oxygen of 85 % with 39.5 degrees is urgent": "血氧 85% 伴体温 39.5 度为紧急",
    "atrial fibrillation with 200/130 is urgent": "心房颤动伴血压 200/130 为紧急",
}
