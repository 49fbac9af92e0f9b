// All texts of the page, in English and Chinese. A text with arguments is a function.

const s = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;

const en = {
  language: "Language", skip: "Skip to the recommendations", views: "Views",
  recommend: "Recommend", models: "Models", catalogue: "Catalogue",
  history: "History", historyHint: "What a user did, oldest first.",
  add: "Add an item", addHint: "Title or id", noMatch: "No item matches. Try fewer letters, or an id.",
  popular: "Most popular items", matches: (n) => s(n, "item matches", "items match"),
  events: (n) => s(n, "event"), chosen: (title) => `${title} added`,
  oldest: "oldest", newest: "newest",
  clear: "Clear", cleared: "History cleared.", undo: "Undo", undone: "Undone.",
  grip: (title, at, of) => `${title}, place ${at} of ${of}. Alt+Up or Alt+Down moves it; Delete removes it.`,
  up: (title) => `Move ${title} earlier`, down: (title) => `Move ${title} later`, remove: (title) => `Remove ${title}`,
  moved: (title, at, of) => `${title} is now at place ${at} of ${of}.`, removed: (title) => `${title} removed.`,
  gap: "after", gapOf: (title) => `Time between ${title} and the event before it`,
  gapWrong: "Write a number and a unit: 30 s, 5 min, 2 h, 3 d, 1 w, 1 y.",
  gapHint: "This model reads the gaps. The smallest gap is its unit of time, so ten equal gaps mean the same in hours or in days.",
  gapHintSome: (name) => `${name} reads the gaps, and the smallest gap is its unit of time. The other model reads only the order.`,
  order: "This model reads only the order, no times.",
  older: (n) => `Show ${s(n, "older event")}`, tooLong: (n) => `The model reads the last ${number(n)} events; older ones are grey.`,
  userId: "User id", load: "Load", loadUser: "Load a user", userOf: (id) => `History of user ${id}`,
  userEdited: (id) => `Bans of user ${id}; history edited here`, dropUser: (id) => `Forget that this is user ${id}`,
  loaded: (id, n) => `${s(n, "event")} of user ${id} loaded.`, noUser: (id) => `No user has the id ${id}. Check the id, or search items instead.`,
  conditions: "Conditions", k: "Items in the list", seen: "Items of the history",
  seenDefault: "as trained", seenHide: "never recommend", seenShow: "may come again",
  rules: "Rules", noRules: "none", perGroup: "At most per group", noLimit: "no limit",
  now: "Now", nowHint: "The time of the request: rules with from and until use it. Empty: the present moment.",
  banned: "Banned", banAdd: "Ban an item", only: "Only these", onlyAdd: "Allow an item", onlyHint: "Empty: all items are candidates.",
  unban: (title) => `Allow ${title} again`, unallow: (title) => `Remove ${title} from the allowed items`,
  reset: "Reset conditions", active: (n) => `${number(n)} set`,
  model: "Model", compareWith: "Compare with", nothing: "no second model",
  list: "Recommendations", listOf: (name) => `Recommendations of ${name}`, updating: "Updating…", ms: (n) => `${number(n)} ms`,
  items: (n) => s(n, "item"), first: (title) => `First: ${title}.`, reads: (n) => `from ${s(n, "event")}`,
  unknown: (ids) => `The model does not know these items, so it ignored them: ${ids}.`,
  fallback: (name) => `The model knows no item of this history, so the list comes from the fallback: ${name}.`,
  emptyList: "No item is left under these conditions. Allow more items, or remove bans.",
  score: "score", why: "Why", similar: "Similar", addThis: "Add", ban: "Ban",
  whyOf: (title) => `Why ${title}`, similarOf: (title) => `Items similar to ${title}`, addOf: (title) => `Add ${title} to the history`, banOf: (title) => `Ban ${title}`,
  bannedNow: (title) => `${title} is banned.`, addedNow: (title) => `${title} is now the newest event.`,
  because: "Because of", reasons: "Reasons in the list",
  effects: "How much the score falls without the event:", intervals: "gap", intervalsHint: "How much the score falls if this event and the one before came at the same time", noReasons: "No event raises this score.",
  noEffects: "This list does not come from the model, so the history has no reasons for it.",
  against: "speaks against it", moreEvents: (n) => `${s(n, "more event")} with a smaller effect`,
  cosine: "Cosine of the item vectors, from −1 to 1.",
  onlyHere: "only here", higher: (n, other) => `${n} ${n === 1 ? "place" : "places"} higher than in ${other}`,
  lower: (n, other) => `${n} ${n === 1 ? "place" : "places"} lower than in ${other}`, equal: "same place",
  both: (n, of) => `${number(n)} of ${number(of)} items are in both lists`, same: "Both lists are equal.",
  pin: "Keep for comparison", pinHint: "Keep this list beside the next ones, to see what a change does", pinned: "Kept list", unpin: "Drop the kept list",
  curl: "Copy as curl", link: "Copy link", copied: "Copied.", copyYourself: "Copy this text:", close: "Close",
  startTitle: "Build a history to get a list",
  cold: "Without a history, everybody gets this list of the fallback:",
  short: (n, of) => `Only ${number(n)} of ${number(of)} items are left by the history and the conditions.`,
  start: "Search for two or three items that a user might have chosen, oldest first. The list appears at once and follows every change.",
  example: "Try an example", orUser: "Or load the history of a user by id.",
  token: "This server asks for a token", tokenHint: "Your operator has it: a line of the file that sasrec serve --tokens reads. It stays in this tab and is forgotten when you close it.",
  tokenField: "Token", tokenUse: "Use token", tokenWrong: "The server does not accept this token. Check that it is complete.", tokenForget: "Forget token",
  retry: "Try again", details: "Details",
  offline: "The server does not answer. Check that sasrec serve is running and that you are connected. This page tries again by itself.",
  back: "The server answers again.", scope: "This token may not read. Ask your operator for one with the scope read.",
  busy: (n) => `The server has more requests than it can answer. This page tries again in ${s(n, "second")}.`,
  broken: "The server could not answer. Look at its log; the request id is below.", request: (id) => `request ${id}`,
  refused: "The server refused the request.", absent: "The server does not know this name.",
  loading: "Loading…", kind: "Kind", weights: "Weights", loadedAt: "Loaded", parameters: "Parameters", maxlen: "Reads", lastEvents: (n) => `the last ${s(n, "event")}`,
  timed: "Times", timedYes: "reads gaps", timedNo: "reads the order only", repeats: "Seen items", repeatsYes: "recommends them again", repeatsNo: "are hidden",
  share: "Share of users", itemsFact: "Items", usersFact: "Users", eventsFact: "Events", period: "Period", data: "Data", fallbackFact: "Fallback", none: "none",
  quality: "Quality", qualityHint: (split) => `On ${split === "valid" ? "validation" : "test"} targets; higher is better.`, baseline: "baseline", scorer: "Model or baseline",
  interval: (low, high) => `95 % interval ${low} to ${high}`, intervalHint: "A line through a bar shows the 95 % interval over users.", noMetrics: "This model has no metrics: it was not measured, or it is an export.",
  protocol: "How it was measured", candidates: "Candidates", seenRule: "Seen items", split: "Split", best: (name) => `Best baseline: ${name}`,
  beaten: (name) => `A simple baseline is better here: ${name}. Think twice before you serve this model.`, leads: (name, percent) => `${percent} above the best baseline, ${name}, in NDCG@10.`,
  title: "Title", id: "Id", group: "Group", eventsColumn: "Events", search: "Search the catalogue", shown: (n, of) => `${number(n)} of ${s(of, "item")}`, more: "Show more",
  actions: "Actions", rank: "Rank", print: "Printed from",
  codes: {}, // the server's own sentences are in English
};

const zh = {
  language: "语言", skip: "跳到推荐列表", views: "页面",
  recommend: "推荐", models: "模型", catalogue: "物品库",
  history: "用户历史", historyHint: "用户的行为，从早到晚排列。",
  add: "添加物品", addHint: "输入标题或 ID", noMatch: "没有匹配的物品，请减少关键字或改用 ID。",
  popular: "热门物品", matches: (n) => `匹配 ${number(n)} 个物品`,
  events: (n) => `${number(n)} 次交互`, chosen: (title) => `已添加：${title}`,
  oldest: "最早", newest: "最近",
  clear: "清空", cleared: "历史已清空。", undo: "撤销", undone: "已撤销。",
  grip: (title, at, of) => `${title}，第 ${at} 项，共 ${of} 项。按 Alt+上/下箭头移动，按 Delete 删除。`,
  up: (title) => `将“${title}”前移`, down: (title) => `将“${title}”后移`, remove: (title) => `移除“${title}”`,
  moved: (title, at, of) => `“${title}”现在是第 ${at} 项，共 ${of} 项。`, removed: (title) => `已移除“${title}”。`,
  gap: "间隔", gapOf: (title) => `“${title}”与上一次行为的时间间隔`,
  gapWrong: "请输入数字和单位，例如 30 秒、5 分、2 小时、3 天、1 周、1 年。",
  gapHint: "该模型会读取时间间隔，并以最小间隔为时间单位：十个相等的间隔，无论是一小时还是一天，结果都一样。",
  gapHintSome: (name) => `${name} 会读取时间间隔，并以最小间隔为时间单位；另一个模型只看先后顺序。`,
  order: "该模型只看先后顺序，不看时间。",
  older: (n) => `显示更早的 ${number(n)} 条`, tooLong: (n) => `模型只读取最近 ${number(n)} 条，更早的显示为灰色。`,
  userId: "用户 ID", load: "载入", loadUser: "载入用户", userOf: (id) => `用户 ${id} 的历史`,
  userEdited: (id) => `按用户 ${id} 的屏蔽规则；历史已在此修改`, dropUser: (id) => `不再关联用户 ${id}`,
  loaded: (id, n) => `已载入用户 ${id} 的 ${number(n)} 条历史。`, noUser: (id) => `没有 ID 为 ${id} 的用户。请检查 ID，或直接搜索物品。`,
  conditions: "条件", k: "推荐数量", seen: "历史中的物品",
  seenDefault: "与训练时一致", seenHide: "不再推荐", seenShow: "可以再次推荐",
  rules: "规则", noRules: "无", perGroup: "每个分组最多", noLimit: "不限",
  now: "当前时间", nowHint: "请求的时间，供规则判断物品的上架与下架。留空即为此刻。",
  banned: "已屏蔽", banAdd: "屏蔽物品", only: "仅限这些物品", onlyAdd: "添加允许的物品", onlyHint: "留空表示所有物品都是候选。",
  unban: (title) => `取消屏蔽“${title}”`, unallow: (title) => `不再限定“${title}”`,
  reset: "重置条件", active: (n) => `已设 ${number(n)} 项`,
  model: "模型", compareWith: "对比模型", nothing: "不对比",
  list: "推荐列表", listOf: (name) => `${name} 的推荐列表`, updating: "更新中…", ms: (n) => `${number(n)} 毫秒`,
  items: (n) => `${number(n)} 个物品`, first: (title) => `第一项：${title}。`, reads: (n) => `依据 ${number(n)} 条历史`,
  unknown: (ids) => `模型不认识以下物品，已忽略：${ids}。`,
  fallback: (name) => `模型不认识该历史中的任何物品，因此列表来自兜底策略：${name}。`,
  emptyList: "在这些条件下没有可推荐的物品。请放宽限制或取消屏蔽。",
  score: "得分", why: "原因", similar: "相似", addThis: "加入", ban: "屏蔽",
  whyOf: (title) => `推荐“${title}”的原因`, similarOf: (title) => `与“${title}”相似的物品`, addOf: (title) => `将“${title}”加入历史`, banOf: (title) => `屏蔽“${title}”`,
  bannedNow: (title) => `已屏蔽“${title}”。`, addedNow: (title) => `“${title}”已作为最近一次行为加入。`,
  because: "因为", reasons: "在列表中显示原因",
  effects: "去掉该行为后得分的降幅：", intervals: "间隔", intervalsHint: "假设该行为与上一行为同时发生，得分的降幅", noReasons: "没有任何行为提高该得分。",
  noEffects: "该列表并非来自模型，因此无法用历史解释。",
  against: "降低得分", moreEvents: (n) => `另有 ${number(n)} 条影响较小`,
  cosine: "物品向量的余弦相似度，范围 −1 到 1。",
  onlyHere: "仅此列表", higher: (n, other) => `比 ${other} 高 ${n} 位`,
  lower: (n, other) => `比 ${other} 低 ${n} 位`, equal: "位置相同",
  both: (n, of) => `两个列表有 ${number(n)} 个共同物品（共 ${number(of)} 个）`, same: "两个列表完全相同。",
  pin: "保留作对比", pinHint: "将此列表留在旁边，便于查看改动带来的变化", pinned: "保留的列表", unpin: "移除保留的列表",
  curl: "复制为 curl", link: "复制链接", copied: "已复制。", copyYourself: "请复制以下内容：", close: "关闭",
  startTitle: "先构建一段历史",
  cold: "没有历史时，所有用户都会得到这个兜底列表：",
  short: (n, of) => `受历史和条件限制，只剩 ${number(n)} 个物品（共需 ${number(of)} 个）。`,
  start: "搜索两三个用户可能选过的物品，从早到晚添加。推荐列表会立即出现，并随每次改动更新。",
  example: "试试示例", orUser: "也可以按 ID 载入用户的历史。",
  token: "该服务器需要访问令牌", tokenHint: "请向管理员索取（即 sasrec serve --tokens 所读文件中的一行）。令牌只保存在此标签页中，关闭后即清除。",
  tokenField: "令牌", tokenUse: "使用令牌", tokenWrong: "服务器不接受该令牌，请检查是否完整。", tokenForget: "清除令牌",
  retry: "重试", details: "详情",
  offline: "服务器没有响应。请确认 sasrec serve 正在运行且网络正常。页面会自动重试。",
  back: "服务器已恢复响应。", scope: "该令牌没有读取权限。请向管理员索取带 read 权限的令牌。",
  busy: (n) => `服务器请求过多，页面将在 ${number(n)} 秒后重试。`,
  broken: "服务器未能完成请求，请查看其日志，请求编号见下。", request: (id) => `请求 ${id}`,
  refused: "服务器拒绝了该请求。", absent: "服务器中没有这个名称。",
  loading: "加载中…", kind: "类型", weights: "权重", loadedAt: "载入时间", parameters: "参数量", maxlen: "读取", lastEvents: (n) => `最近 ${number(n)} 条`,
  timed: "时间", timedYes: "读取时间间隔", timedNo: "只看先后顺序", repeats: "历史中的物品", repeatsYes: "可再次推荐", repeatsNo: "不再推荐",
  share: "用户占比", itemsFact: "物品", usersFact: "用户", eventsFact: "交互", period: "时间范围", data: "数据", fallbackFact: "兜底策略", none: "无",
  quality: "效果", qualityHint: (split) => `在${split === "valid" ? "验证" : "测试"}集上评估，数值越高越好。`, baseline: "基线", scorer: "模型或基线",
  interval: (low, high) => `95% 置信区间 ${low} 至 ${high}`, intervalHint: "条形上的横线表示按用户计算的 95% 置信区间。", noMetrics: "该模型没有评估指标：尚未评估，或是导出的模型。",
  protocol: "评估方式", candidates: "候选集", seenRule: "历史物品", split: "划分方式", best: (name) => `最佳基线：${name}`,
  beaten: (name) => `在此数据上，简单基线 ${name} 更好，上线该模型前请三思。`, leads: (name, percent) => `NDCG@10 比最佳基线 ${name} 高 ${percent}。`,
  title: "标题", id: "ID", group: "分组", eventsColumn: "交互次数", search: "搜索物品库", shown: (n, of) => `已显示 ${number(n)} / ${number(of)} 个物品`, more: "显示更多",
  actions: "操作", rank: "名次", print: "打印自",
  codes: {
    nothing_known: "历史中没有模型认识的物品，且服务器未设置兜底策略。请添加已知物品。",
    unfit_rules: "筛选条件、分组上限或时间与该物品库不符，请调整条件。",
    unfit_times: "该模型需要每个物品的时间，单位为秒并按升序排列。请检查时间间隔。",
    invalid: "请求内容不符合接口要求，请减少物品或调整条件。",
    unknown: "服务器中没有该用户、物品、模型或规则。",
    too_large: "请求内容过大，请减少物品。",
    foreign_host: "未设令牌的服务器只接受本机地址，请改用 127.0.0.1 打开本页。",
    model: "模型暂时无法响应，请查看 /readyz。",
    store: "用户事件存储暂时不可用，请稍后重试。",
  },
};

export const TABLES = { en, zh };
const KEY = "sasrec-language";
export const LANGUAGES = { en: "English", zh: "中文" };
let current = "en";

function remembered() {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null; // storage is switched off
  }
}

/** Choose the language that was chosen here before, else the first of the browser's that this page has. */
export function startLanguage() {
  const wanted = [remembered(), ...(navigator.languages ?? [navigator.language])];
  use(wanted.map((each) => (each ?? "").slice(0, 2)).find((each) => each in TABLES) ?? "en");
}

export function setLanguage(name) {
  use(name);
  try {
    localStorage.setItem(KEY, name);
  } catch {
    // The choice holds until the page is closed.
  }
}

function use(name) {
  current = name;
  document.documentElement.lang = name === "zh" ? "zh-CN" : "en";
}

export const language = () => current;

export function t(name, ...given) {
  const text = TABLES[current][name];
  return typeof text === "function" ? text(...given) : text;
}

/** Fill the elements of index.html that name their text. */
export function translate(root) {
  for (const element of root.querySelectorAll("[data-text]")) element.textContent = t(element.dataset.text);
  for (const element of root.querySelectorAll("[data-label]")) element.setAttribute("aria-label", t(element.dataset.label));
  for (const element of root.querySelectorAll("[data-hint]")) element.setAttribute("placeholder", t(element.dataset.hint));
}

export function number(value, digits = 0) {
  return new Intl.NumberFormat(document.documentElement.lang, { minimumFractionDigits: digits, maximumFractionDigits: digits }).format(value);
}

export function percent(share) {
  return new Intl.NumberFormat(document.documentElement.lang, { style: "percent", maximumFractionDigits: 0 }).format(share);
}

export function signed(value, digits) {
  return `${value < 0 ? "−" : "+"}${number(Math.abs(value), digits)}`;
}

export function moment(iso, time = true) {
  const date = new Date(iso);
  if (Number.isNaN(date.getTime())) return String(iso);
  return new Intl.DateTimeFormat(document.documentElement.lang, { dateStyle: "medium", ...(time ? { timeStyle: "short" } : {}) }).format(date);
}

// Longest first. The first name of each language is shown; all are read in both.
const UNITS = [
  [31557600, { en: "y", zh: "年" }, /^(y|yr|years?|年)$/],
  [604800, { en: "w", zh: "周" }, /^(w|wk|weeks?|周|星期)$/],
  [86400, { en: "d", zh: "天" }, /^(d|days?|天|日)$/],
  [3600, { en: "h", zh: "小时" }, /^(h|hr|hours?|小时|时)$/],
  [60, { en: "min", zh: "分" }, /^(m|min|minutes?|分|分钟)$/],
  [1, { en: "s", zh: "秒" }, /^(s|sec|seconds?|秒)?$/],
];

/** Write seconds as a number and a unit; weeks and years only if they come out even. */
export function gapText(seconds) {
  const [size, names] = UNITS.find(([size], at) => seconds >= size && (at > 1 || seconds % size === 0)) ?? UNITS.at(-1);
  const amount = seconds / size;
  const shown = new Intl.NumberFormat("en", { maximumFractionDigits: size === 1 ? 0 : 1, useGrouping: false }).format(amount);
  return `${shown} ${names[current]}`;
}

/** Read seconds from a number and a unit; null if the text is neither. */
export function gapOf(text) {
  const match = /^(\d+(?:[.,]\d+)?)\s*(\S*)$/.exec(text.trim().toLowerCase());
  const unit = match && UNITS.find(([, , names]) => names.test(match[2]));
  return unit ? Math.min(Math.round(Number(match[1].replace(",", ".")) * unit[0]), 3e9) : null;
}
